"""Figures in Prometheus' text format."""

from componentbase.metrics import Metric, merged, render


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


def test_pages_of_several_processes_are_one_with_each_name_in_one_place() -> None:
    pages = [
        render(
            [Metric("hub_a_total", "A.", number), Metric("hub_b", "B.", number, {"x": "y"})], {"worker": str(number)}
        )
        for number in (1, 2)
    ]
    assert merged([*pages, render([Metric("hub_c", "C.", 0)])]).decode() == (
        "# HELP hub_a_total A.\n"
        "# TYPE hub_a_total counter\n"
        'hub_a_total{worker="1"} 1\n'
        'hub_a_total{worker="2"} 2\n'
        "# HELP hub_b B.\n"
        "# TYPE hub_b gauge\n"
        'hub_b{worker="1",x="y"} 1\n'
        'hub_b{worker="2",x="y"} 2\n'
        "# HELP hub_c C.\n"
        "# TYPE hub_c gauge\n"
        "hub_c 0\n"
    )
