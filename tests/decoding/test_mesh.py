"""The engine on a mesh of eight fake devices writes what one device writes."""

import json

import numpy as np
import pytest

from tests.support.helpers import on_eight_devices


@pytest.mark.long
def test_a_mesh_writes_what_one_device_writes() -> None:
    """Greedy texts and drawn days token for token; scores down to -60 within 1e-5 of them."""
    printed = on_eight_devices("decode_on_meshes")
    results = json.loads(printed.splitlines()[-1])
    one = results.pop("1")
    assert one["shard"] == [8, 2, 32, 64]  # rows, kv heads, head_dim, slots
    many = results["2x2x2"]
    assert many["devices"] == 8
    assert many["shard"] == [2, 1, 32, 64]
    assert many["kernel"] == [16, 24]  # of up_proj's [32, 48]
    assert many["recompiled"] == 0
    assert many["texts"] == one["texts"]
    assert many["days"] == one["days"]
    np.testing.assert_allclose(many["scores"], one["scores"], rtol=1e-5, atol=1e-4)
