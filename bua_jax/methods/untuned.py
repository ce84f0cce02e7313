"""What the base writes about people as it comes: the rounds that BUA is asked, the history in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bua_jax.methods.protocol import About, Cases, Description, Method, Site
from bua_jax.methods.zero_shot import READS, untuned

if TYPE_CHECKING:
    from bua_jax.alignment.ask import Bua


@dataclass(frozen=True)
class Untuned:
    """A base that describes people in words of its own."""

    bua: "Bua"
    rows: int

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"training_windows": 0}

    def describe(self, cases: Cases) -> Description:
        said = self.bua.understand(cases.histories())
        return Description([one.texts for one in said], [one.truncated for one in said])


def _load(site: Site) -> Untuned:
    return Untuned(untuned(site), 8 * site.config.execution.decode_batch)


METHOD = Method(
    "untuned",
    About(
        "Untuned",
        "the base as it comes, history in words",
        ("weekday", "slot", "place", "behaviour"),
        "nothing",
    ),
    load=_load,
    says=("describe",),
    needs=lambda config: ("encoder",),
    reads=READS,
)
