"""All fields with the paper's defaults; the other files start from it.

    python -m bua_jax.train --config=configs/stage2.py:model=nano,data=simulated
    python -m bua_jax.curriculum --config=configs/curriculum.py:model=qwen2.5-7b,scale=paper,mesh=8

The argument after the colon: `model` (nano, smollm2-135m, qwen2.5-0.5b ... -72b), `data` (a file in
configs/data), `scale` (tiny, laptop, paper: sizes of windows, encoder and stages), `mesh` (devices: a number
N is fsdp=N; DATAxFSDPxTENSOR sets all three).
"""

from ml_collections import ConfigDict

from bua_jax.basics.config import pages, parse_arg, part


def _stage(peak_lr: float) -> ConfigDict:
    """How a stage is trained (Appendix G)."""
    config = ConfigDict()
    config.epochs = 3.0  # passes over the stage's dialogues (Appendix G: at most 3)
    config.batch_dialogues = 96  # dialogues per optimizer step, on average (Appendix G)
    config.row_length = 2048  # tokens per packed row
    config.microbatches = 1  # gradient accumulation steps per batch
    config.peak_lr = peak_lr  # learning rate after warm-up
    config.initial_lr = 1e-6  # at step 0 (Appendix G)
    config.final_lr = 1e-6  # at the last step (Appendix G)
    config.warmup_share = 0.03  # of the steps (Appendix G)
    config.weight_decay = 0.01  # AdamW, on matrices
    config.clip_norm = 1.0  # of the global gradient norm
    config.loss = "round_balanced"  # Eq. 5, or another reduction (docs/loss-weighting.md)
    config.length_beta = 1.0  # of the loss dialogue_family or batch_family: T_i^-beta per token
    config.kind_weights = ""  # static, by round kind: "summary=0.5,prediction=2"; others 1
    config.balancer = "equal"  # NAME, NAME:SETTING=VALUE,... or a .py file: dynamic weights
    config.balancer_unit = "task"  # task or round (its kind): what the balancer weighs
    config.balancer_scale = "own"  # own, sum or direction: of the weights
    config.evaluations = 10  # validation passes, evenly spread over the run
    config.checkpoints = 10  # checkpoints, evenly spread over the run
    config.max_steps = 0  # stop early after that many optimizer steps; 0 = no limit
    config.full_finetuning = False  # train the base too (no adapter)
    return config


def _execution(mesh: str) -> ConfigDict:
    """How things are computed, not what; recorded, and never a reason to build anew."""
    config = ConfigDict()
    config.mesh = mesh  # devices: N (fsdp=N) or DATAxFSDPxTENSOR
    config.attention = "auto"  # of training: xla, cpu, cudnn, splash; auto: cpu or xla
    config.remat = "full"  # none, dots or full
    config.merge_adapter = False  # into the base, once per step: small models on CPU
    # Processes beside each that trains, which pack its rows ahead. Raise it where train/input_share is
    # more than a few percent and CPU cores are idle; another number changes the order of dialogues.
    config.feed_workers = 0  # 0 = rows are packed between steps
    config.decode_batch = 32  # histories decoded together
    config.profile = 0  # training steps traced by jax.profiler, beside the metrics; 0 = none
    config.gradients_every = 0  # training steps between looks at units' own gradients
    config.mix = False  # go on with a half-built step that was started otherwise
    config.api_cache = "~/.cache/bua_jax/api.sqlite"  # answers of APIs, each paid for once
    config.api_consent = ""  # host that histories of people may be sent to; empty: to nobody
    config.api_limits = _api_limits()  # of what is sent there
    return config


def _api_limits() -> ConfigDict:
    """How fast an API is asked, and what may be spent on it in all."""
    config = ConfigDict()
    config.concurrency = 8  # questions under way at once
    config.requests_per_minute = 300  # calls, evenly spread
    config.tokens_per_minute = 0  # of questions and answers, as estimated; 0 = no limit
    config.tokens = 1_000_000  # of all calls in api_cache, those asked again too
    config.cost = 0.0  # of all calls in api_cache, in the prices' currency; 0 = no limit
    config.price_in = 0.0  # of a million tokens of questions
    config.price_out = 0.0  # of a million tokens of answers
    config.timeout = 120.0  # seconds until an answer must be whole
    return config


def _windows() -> ConfigDict:
    """Which parts of which records the runs use."""
    config = ConfigDict()
    config.seed = 42  # of the windows drawn: runs with other seeds keep their test windows
    config.prediction_history = 40  # events before a prediction (Appendix H)
    config.generation_history = 100  # events before a generated day (Appendix H)
    config.min_history = 10  # events before the first target of a record
    config.train = 100_000  # training windows drawn for dialogues (Appendix C); 0 = all
    config.validation = 2_000  # validation windows drawn for the validation loss; 0 = all
    # Of training people on whom no stage is trained, for methods that read what it says about them.
    config.cross = 0  # windows set apart; 0 = none
    config.fit_train = 60_000  # training windows that other methods are fitted on; 0 = all
    config.fit_validation = 4_000  # of validation users, that they are chosen on; 0 = all
    config.match = 1_000  # of these, that rows are tuned by, and others matched to BUA by
    config.days_hybrid = 10_000  # days of training users, that generators write for others; 0 = all
    config.test = 0  # test windows drawn for evaluation; 0 = all
    config.texts = 300  # of these, that texts are held against (docs/understanding.md); 0 = all
    config.edited = 100  # of these, whose edited logs are described too, in experiments; 0 = all
    config.test_history = "own"  # before predictions: own, shuffled, reversed, last10 or another
    config.generation_test = 500  # test days generated; 0 = all
    return config


def _encoder() -> ConfigDict:
    """Eq. 1's g_phi, pretrained on the training users' events."""
    config = ConfigDict()
    config.kind = "behavegpt"  # behavegpt or sasrec (Appendix N)
    config.dim = 64  # width of each of BehaveGPT's four embeddings; of SASRec
    config.num_layers = 6  # transformer layers
    config.num_heads = 8  # attention heads
    config.dropout = 0.1  # share of activations dropped in training
    config.epochs = 10  # passes over the training users' events, at most
    config.batch = 64  # sequences of prediction_history + 1 events
    config.peak_lr = 1e-3  # AdamW, cosine
    config.weight_decay = 0.1  # AdamW, on matrices
    config.patience = 5  # epochs without a better validation log-loss before it stops
    config.validation = 4_000  # windows of validation users that this is measured on; 0 = all
    config.dro_lambda = 0.0  # share of the distributionally robust loss; 0 = cross-entropy
    return config


def _dialogues() -> ConfigDict:
    """Appendix B."""
    config = ConfigDict()
    config.stage1_tasks = (  # tasks of stage 1; leave some out to ablate
        "reconstruction",
        "current_scene",
        "future_scene",
        "home_work",
        "hobbies",
    )
    config.stage1_share = 0.5  # stage-1 dialogues per training window
    config.generation_share = 0.25  # of stage-2 dialogues that end in a generated day
    config.nothing_share = 0.2  # cap on "nothing recorded" scene answers, training only
    config.annotator = "rules"  # of understanding rounds: rules, or teacher (the part `teacher`)
    config.rounds = True  # understanding rounds before the final one (off: ablation)
    config.shortened_share = 0.0  # of stage-2 training dialogues: the final round alone
    config.target_time_revealed = False  # give the target's weekday and time
    config.reflect_train = 2_000  # training windows whose summaries are drafted
    config.reflect_validation = 100  # validation windows, likewise
    config.reflect_share = 0.5  # lowest-scored drafts that become stage-3 dialogues
    config.reflect_critic = "rules"  # who scores and refines drafts: rules or teacher
    return config


def _host() -> ConfigDict:
    """A model behind an API; never without consent."""
    config = ConfigDict()
    config.url = ""  # of an OpenAI-compatible host, up to /chat/completions
    config.model = ""  # as the host names it
    config.key_variable = ""  # environment variable with the API key; empty: none
    config.json_mode = "auto"  # json_schema, json_object or prompt; auto: the first that it takes
    config.max_tokens = 768  # of an answer; more where a model reasons first
    config.temperature = 0.0  # of an answer
    config.extra = ""  # more of the request's body, as a JSON object; null takes a field out
    return config


def _model(name: str) -> ConfigDict:
    """The base, what it reads of the encoder, and the adapter."""
    config = ConfigDict()
    config.name = name  # nano, smollm2-135m, qwen2.5-0.5b ... -72b
    config.path = ""  # Hugging Face directory, .gguf file or hub id NAME@REVISION
    config.dtype = "float32"  # of the frozen base: float32 on CPU, bfloat16 on accelerators
    config.base_quantization = "none"  # of the frozen projections: none, int8 or nf4
    config.soft_tokens = "sequence"  # sequence, item (Table 4), pooled, none or text
    config.recall = 0  # last events of which the final user turn has a second soft token
    config.drill = ""  # question that the prediction instruction begins with; empty = none
    config.warm_start = True  # fit a fresh projector to the words of events first
    config.adapter = ""  # PEFT folder to start from, with its projector if that lies beside
    config.lora_rank = 16  # of the adapter's low-rank products
    config.lora_alpha = 32.0  # the adapter is scaled by alpha / rank
    config.lora_targets = ("q", "k", "v", "o", "gate", "up", "down")  # projections
    config.train_label_tokens = False  # train the embeddings of the labels' tokens too
    return config


def _decoding() -> ConfigDict:
    """How rounds, labels and days are written."""
    config = ConfigDict()
    config.max_new_tokens = 256  # per understanding round
    config.cache_dtype = "float32"  # of the KV cache: float32, bfloat16 or int8
    config.weight_dtype = "float32"  # of the weights it reads on a CPU: float32, bfloat16 or int8
    config.refine = False  # run the refinement round before the final one (stage 3)
    config.decode = "labels"  # labels (exact scores of all), trie (greedy) or free
    config.temperature = 1.0  # of generated days; 0 = greedy
    config.top_p = 0.95  # of generated days
    config.constrained = True  # generated days obey the grammar
    return config


def _evaluation() -> ConfigDict:
    """What is asked, and how it is scored."""
    config = ConfigDict()
    config.methods = (  # rows of the tables, among those of bua_jax/methods/table.py
        "majority",
        "window_majority",
        "markov",
        "markov_counts",
        "lightgbm",
        "sasrec",
        "behavegpt",
        "encoder_adjusted",
        "zero_shot",
        "reference",
        "untuned",
        "bua_stage1",
        "bua_stage2",
        "bua",
        "last_day",
    )
    config.bootstrap = 2_000  # resamples of users for the intervals
    return config


def _anonymise() -> ConfigDict:
    """What the verb anonymise blurs beyond ids and areas (docs/privacy.md says what each is worth)."""
    config = ConfigDict()
    config.date_shift = False  # each id's days by whole weeks of its own, at most a year
    config.slot_hours = 0  # times rounded down to blocks of 1, 2, 3, 4, 6, 8 or 12 hours; 0 = kept
    config.split_by = "person"  # person, or period: each id has its own, so people on both sides
    return config


def _report() -> ConfigDict:
    """What is shown."""
    config = ConfigDict()
    config.examples = 3  # dialogues shown in report.html
    config.trackers = ()  # mlflow (a folder beside the run), wandb (offline): copies of a finished run
    return config


def get_config(arg: str = "") -> ConfigDict:
    usual = {"model": "nano", "data": "simulated", "scale": "laptop", "mesh": "1"}
    args = parse_arg(arg, usual)
    config = ConfigDict()
    config.step = "curriculum"  # what the config is for: curriculum, encoder, stage1 ... joint
    config.seed = 42  # of all that is drawn but splits (data.split_seed) and windows (windows.seed)
    config.execution = _execution(args["mesh"])  # how, not what
    config.data = part("data", args["data"])
    config.windows = _windows()  # of records
    config.encoder = _encoder()  # of events
    config.dialogues = _dialogues()  # that stages are trained on
    config.teacher = _host()  # that writes them in the rules' place, where it is asked to
    config.judge = _host()  # of texts about people, for the verb `rate`
    config.model = _model(args["model"])  # base, projector and adapter
    config.stages = (1, 2, 3)  # which stages the curriculum runs; leave some out to ablate
    config.stage1 = _stage(peak_lr=1e-3)  # projector alone: a fresh MLP takes a higher rate
    config.stage2 = _stage(peak_lr=5e-5)
    config.stage3 = _stage(peak_lr=5e-5)
    config.joint = _stage(peak_lr=5e-5)
    config.methods = pages("methods")  # a page each in configs/methods
    config.decoding = _decoding()  # of answers
    config.evaluation = _evaluation()  # of predictions and days
    config.report = _report()  # of an evaluation
    config.anonymise = _anonymise()  # of a data file, by the verb of that name
    config.update(part("models", args["model"].split("-")[0].replace(".", "_"), args["model"]))
    config.update(_at_scale(args["scale"], config))
    return config


def _at_scale(name: str, config: ConfigDict) -> ConfigDict:
    """Sizes; those of the simulated population are nothing to a file."""
    sizes = part("scale", name)
    if "data" in sizes:
        sizes.data = ConfigDict({k: v for k, v in sizes.data.items() if k in config.data})
    return sizes
