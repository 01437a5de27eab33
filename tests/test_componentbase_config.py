"""Configuration: what is read, what is refused with which line and spelling, and that what is printed is read back."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from componentbase.config import FILE_BYTES_MAX, REQUIRED, ConfigError, dump, load, override, parse, setting
from componentbase.endpoints import Endpoint


class Mode(Enum):
    FAST = "fast"
    SAFE = "safe"


@dataclass(frozen=True)
class Mqtt:
    """The broker."""

    url: str = setting("embedded", "`embedded`, or the URL of a broker.", pattern=r"embedded|mqtts?://\S+")
    keepalive_s: float = setting(30.0, "How often to say hello.", at_least=1, at_most=3600)


@dataclass(frozen=True)
class Rule:
    resource: str = setting(REQUIRED, "Plural and group.")
    nodes: Literal["all", "label"] = "all"


@dataclass(frozen=True)
class Edge:
    """
    One edge node.

    A second paragraph is for the reader of the source.
    """

    node: str = setting("node-1", "The node's name.")
    listen: Endpoint = setting(Endpoint("127.0.0.1", 10550), "Where the local API listens.")
    data_dir: Path = setting(Path("/var/lib/fairlead"), "Where it keeps what it has.")
    mqtt: Mqtt = Mqtt()
    tries: int = setting(3, at_least=0)
    verbose: bool = False
    mode: Mode = Mode.SAFE
    ca: Path | None = setting(None, "The CA to trust.")
    level: Literal["debug", "info"] | None = "info"
    labels: Mapping[str, str] = setting({}, "Labels of the node.")
    limits: dict[str, int] = setting({})
    rules: tuple[Rule, ...] = ()
    topics: list[str] = setting([])
    weights: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.verbose and self.tries == 0:
            raise ValueError("verbose needs tries")


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Edge, text, "edgecore.yaml")
    return str(caught.value)


# ---- reading


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "mqtt:\nlabels:\nrules:\n"])
def test_nothing_given_is_all_defaults(text: str) -> None:
    assert parse(Edge, text, "x") == Edge()


def test_every_type_is_read() -> None:
    text = """
    node: edge-7
    listen: "[::1]:10550"
    dataDir: /srv/edge
    mqtt: {url: "mqtt://10.0.0.1:1883", keepaliveSeconds: 5}
    tries: 1_000
    verbose: true
    mode: fast
    ca: /etc/ca.pem
    level: null
    labels: {site: "12", empty: ""}
    limits: {a: 1}
    rules: [{resource: pods}, {resource: devices, nodes: label}]
    topics: [a/b, $hw/events]
    weights: [1, 0.5]
    """
    assert parse(Edge, text, "x") == Edge(
        node="edge-7",
        listen=Endpoint("::1", 10550),
        data_dir=Path("/srv/edge"),
        mqtt=Mqtt("mqtt://10.0.0.1:1883", 5.0),
        tries=1000,
        verbose=True,
        mode=Mode.FAST,
        ca=Path("/etc/ca.pem"),
        level=None,
        labels={"site": "12", "empty": ""},
        limits={"a": 1},
        rules=(Rule("pods"), Rule("devices", "label")),
        topics=["a/b", "$hw/events"],
        weights=(1.0, 0.5),
    )


def test_relative_path_is_taken_from_the_files_directory(tmp_path: Path) -> None:
    file = tmp_path / "edgecore.yaml"
    file.write_text("dataDir: data\nca: /etc/ca.pem\n")
    config = load(Edge, file)
    assert config.data_dir == tmp_path / "data"
    assert config.ca == Path("/etc/ca.pem")


def test_home_directory_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/kim")
    assert parse(Edge, "dataDir: ~/edge", "x").data_dir == Path("/home/kim/edge")


# ---- refusing


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("node: a\nmqqt: {}\n", 'edgecore.yaml:2: unknown key "mqqt", did you mean "mqtt"?'),
        ("data_dir: /x", 'edgecore.yaml:1: unknown key "data_dir", did you mean "dataDir"?'),
        ("data-dir: /x", 'edgecore.yaml:1: unknown key "data-dir", did you mean "dataDir"?'),
        ("keepaliveSeconds: 3", 'edgecore.yaml:1: unknown key "keepaliveSeconds": it belongs under "mqtt"'),
        (
            "mqtt:\n  keepalive_s: 3",
            'edgecore.yaml:2: mqtt: unknown key "keepalive_s", did you mean "keepaliveSeconds"?',
        ),
        ("mqtt:\n  zzz: 3", 'edgecore.yaml:2: mqtt: unknown key "zzz"; known are keepaliveSeconds, url'),
        ("node: a\nnode: b", 'edgecore.yaml:2: the key "node" stands here twice, first in line 1'),
        ("labels:\n  a: x\n  a: y", 'edgecore.yaml:3: labels: the key "a" stands here twice, first in line 2'),
        ("tries: 010", 'edgecore.yaml:1: tries: expected a whole number, got "010"'),
        ("tries: -1", "edgecore.yaml:1: tries: -1 is out of range: at least 0"),
        ("tries: [1]", "edgecore.yaml:1: tries: expected a whole number, got a list"),
        ("tries:", "edgecore.yaml:1: tries: expected a whole number, got nothing"),
        ("mqtt:\n\n  keepaliveSeconds: 0.5", "edgecore.yaml:3: mqtt.keepaliveSeconds: 0.5 is out of range: 1 to 3600"),
        ("mqtt:\n  keepaliveSeconds: 30s", 'edgecore.yaml:2: mqtt.keepaliveSeconds: expected a number, got "30s"'),
        ("mqtt: on", 'edgecore.yaml:1: mqtt: expected keys and values, got "on"'),
        ("mqtt:\n  url: tcp://x", 'edgecore.yaml:2: mqtt.url: "tcp://x" does not match'),
        ("verbose: yes", 'edgecore.yaml:1: verbose: expected true or false, got "yes"'),
        ("node: no", 'edgecore.yaml:1: node: expected text, and YAML reads no as bool: write "no" in quotes'),
        ("node: 7", 'edgecore.yaml:1: node: expected text, and YAML reads 7 as int: write "7" in quotes'),
        ("labels: {a: 1.10}", 'labels.a: expected text, and YAML reads 1.10 as float: write "1.10" in quotes'),
        ("node: null", "edgecore.yaml:1: node: expected text, got nothing"),
        ("mode: saef", 'edgecore.yaml:1: mode: "saef" is none of fast, safe, did you mean "safe"?'),
        ("level: loud", 'edgecore.yaml:1: level: "loud" is none of debug, info'),
        ("listen: 10550", 'edgecore.yaml:1: listen: "10550" has no port'),
        ("listen: localhost:http", '"http" is not a port number'),
        ('dataDir: ""', 'edgecore.yaml:1: dataDir: expected a path, got ""'),
        ("dataDir: ~nobody-of-this-name/x", "there is no home directory"),
        ("topics: a", 'edgecore.yaml:1: topics: expected a list, got "a"'),
        ("topics:\n  - a\n  - {b: c}", "edgecore.yaml:3: topics[1]: expected text, got keys and values"),
        ("rules:\n  - nodes: all", 'edgecore.yaml:2: rules[0]: missing key "resource": Plural and group.'),
        ("rules:\n  - resource: x\n    node: all", 'unknown key "node", did you mean "nodes"?'),
        ("verbose: true\ntries: 0", "edgecore.yaml:1: verbose needs tries"),
        ("- a\n- b", "edgecore.yaml:1: expected keys and values, got a list"),
        ("[a]: b", "edgecore.yaml:1: a key must be a word"),
        ("node: a\nmqtt: [", "edgecore.yaml:2: is not YAML:"),
        ("node: a\n\tmqtt: b", "is not YAML:"),
        ("node: a\n---\nnode: b", "is not YAML:"),
        ("node: *x", "is not YAML:"),
        ("node: a\nca: \x07", "edgecore.yaml:2: is not YAML: a character that must not stand there"),
        ("node: !!python/object/apply:os.getcwd []", "is not allowed"),
        ("node: !mine x", "the tag !mine is not allowed"),
        ("<<: {node: a}", 'unknown key "<<"'),
        ("[" * 5000, "is "),
    ],
)
def test_what_is_wrong_is_refused_with_line_and_spelling(text: str, says: str) -> None:
    assert says in refusal(text)


def test_error_has_its_parts_as_data() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Edge, "\ntries: x", "some.yaml")
    assert (caught.value.source, caught.value.line) == ("some.yaml", 2)
    assert caught.value.message == 'tries: expected a whole number, got "x"'


def test_alias_that_contains_itself_ends() -> None:
    assert "expected text" in refusal("topics: &a [*a]")


def test_path_that_must_exist_is_looked_for(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Needs:
        kubeconfig: Path = setting(REQUIRED, must_exist=True)

    file = tmp_path / "c.yaml"
    file.write_text("kubeconfig: admin.conf\n")
    with pytest.raises(ConfigError, match=rf"c\.yaml:1: kubeconfig: {tmp_path}/admin\.conf does not exist"):
        load(Needs, file)
    (tmp_path / "admin.conf").touch()
    assert load(Needs, file).kubeconfig == tmp_path / "admin.conf"


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load(Edge, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(Edge, tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"node: a\nca: \xff\n")
    with pytest.raises(ConfigError, match=r"binary\.yaml:2: is not UTF-8 text"):
        load(Edge, binary)
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="is it the right file"):
        load(Edge, huge)


# ---- overriding


def test_flag_replaces_one_value_deep_inside() -> None:
    config = override(Edge(node="a"), {"mqtt.url": "mqtt://b:1883", "tries": 5, "mqtt.keepalive_s": None})
    assert config == Edge(node="a", mqtt=Mqtt("mqtt://b:1883"), tries=5)


def test_flag_may_be_text_or_a_value_of_the_type() -> None:
    wanted = Edge(
        listen=Endpoint("hub", 1),
        data_dir=Path("x"),
        mode=Mode.FAST,
        mqtt=Mqtt(keepalive_s=9.0),
        labels={"a": "1"},
        rules=(Rule("pods"),),
    )
    as_values = {
        "listen": Endpoint("hub", 1),
        "data_dir": Path("x"),
        "mode": Mode.FAST,
        "mqtt.keepaliveSeconds": 9.0,
        "labels": {"a": "1"},
        "rules": (Rule("pods"),),
    }
    as_text = {"listen": "hub:1", "dataDir": "x", "mode": "fast", "mqtt.keepalive_s": "9"}
    assert override(Edge(), as_values) == wanted
    assert override(Edge(), as_text) == dataclasses.replace(wanted, labels={}, rules=())


def test_text_for_a_text_needs_no_quotes() -> None:
    assert override(Edge(), {"node": "7"}).node == "7"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("mqtt.keepalive_s", 0, "command line: mqtt.keepaliveSeconds: 0 is out of range: 1 to 3600"),
        ("tries", "many", 'command line: tries: expected a whole number, got "many"'),
        ("tries", 1.5, 'command line: tries: expected a whole number, got "1.5"'),
        ("mqqt.url", "x", 'command line: unknown setting "mqqt", did you mean "mqtt"?'),
        ("mqtt.uri", "x", 'command line: unknown setting "mqtt.uri", did you mean "url"?'),
        ("node.name", "x", 'command line: unknown setting "node.name": node is one value'),
        ("listen", "hub", 'command line: listen: "hub" has no port'),
        ("mqtt", "x", 'command line: mqtt: expected keys and values, got "x"'),
    ],
)
def test_flag_is_checked_as_the_file_is(path: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(Edge(), {path: value})
    assert says in str(caught.value)
    assert caught.value.line is None


def test_fields_that_do_not_go_together_are_refused_in_an_override_too() -> None:
    with pytest.raises(ConfigError, match="tries: verbose needs tries"):
        override(Edge(verbose=True), {"tries": 0})


# ---- printing


def test_printed_configuration_explains_itself() -> None:
    lines = dump(Edge(ca=Path("/etc/ca.pem"), topics=["a/b"], labels={"site": "12"})).splitlines()
    assert lines[:4] == ["# One edge node.", "", "# The node's name.", "node: node-1"]
    assert "  # How often to say hello. (1 to 3600)" in lines
    assert "  keepaliveSeconds: 30.0" in lines
    assert lines[lines.index("mode: safe") - 1] == "# One of: fast, safe."
    assert lines[lines.index("mqtt:") - 1] == "# The broker."
    assert "listen: 127.0.0.1:10550" in lines
    assert '  site: "12"' in lines
    assert "  - a/b" in lines
    assert max(map(len, lines)) <= 120


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
rules = st.builds(Rule, resource=words, nodes=st.sampled_from(["all", "label"]))
ports = st.integers(0, 65535)
edges = st.builds(
    Edge,
    node=words,
    listen=st.builds(Endpoint, st.sampled_from(["", "hub", "::1", "10.0.0.1"]), ports),
    data_dir=words.filter(lambda text: text.strip("/.") and "\0" not in text).map(lambda text: Path("/" + text)),
    mqtt=st.builds(Mqtt, keepalive_s=st.floats(1, 3600)),
    tries=st.integers(0, 10**15),
    mode=st.sampled_from(Mode),
    ca=st.none() | st.just(Path("/etc/ca.pem")),
    level=st.sampled_from(["debug", "info", None]),
    labels=st.dictionaries(words, words, max_size=3),
    limits=st.dictionaries(words, st.integers(-5, 5), max_size=3),
    rules=st.lists(rules, max_size=2).map(tuple),
    topics=st.lists(words, max_size=3),
    weights=st.lists(st.floats(0, 1e9), max_size=3).map(tuple),
)


@given(edges)
def test_what_is_printed_is_read_back(config: Edge) -> None:
    assert parse(Edge, dump(config), "printed") == config


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(Edge, text, "fuzz")
