"""Figures in Prometheus' text format."""

from componentbase.metrics import Metric, render


def test_a_page() -> None:
    page = render(
        [
            Metric("hub_pushes_total", "Pushes.", 3),
            Metric("hub_node_dirty", "Keys\nto send.", 1, {"node": 'a"b\\'}),
            Metric("hub_node_dirty", "", 2.5, {"node": "c"}),
        ]
    )
    assert page.decode() == (
        "# HELP hub_pushes_total Pushes.\n"
        "# TYPE hub_pushes_total counter\n"
        "hub_pushes_total 3\n"
        "# HELP hub_node_dirty Keys\\nto send.\n"
        "# TYPE hub_node_dirty gauge\n"
        'hub_node_dirty{node="a\\"b\\\\"} 1\n'
        'hub_node_dirty{node="c"} 2.5\n'
    )
