"""Runs all benchmarks and prints one report: `python -m benches`."""

from benches import bench_fanout, bench_graph, bench_saver, bench_size
from benches.options import parser, run

if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "--all", action="store_true", help="the official saver at 1,000 supersteps, too"
    )
    modules = (bench_saver, bench_fanout, bench_graph, bench_size)
    run([module.BENCHMARK for module in modules], arguments)
