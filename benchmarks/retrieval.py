"""Time and memory of the search for related paragraphs, by backend and size of the corpus."""

import argparse
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from benchmarks.report import replace_table
from jeep.common.storage import read_jsonl
from jeep.data.facts import load_facts
from jeep.probes.retrieval import BACKENDS, build_index
from jeep.probes.word_sets import related_words

PARAGRAPHS = 100


def measure(backend: str, corpus: Path, articles: int, facts: Path, queries: int) -> dict[str, object]:
    """Build and search one index, in a process of its own."""
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        build_index(islice(read_jsonl(corpus), articles), backend, Path(folder) / "index")
        index = BACKENDS[backend](Path(folder) / "index")
        built = time.perf_counter() - start
        size = sum(file.stat().st_size for file in (Path(folder) / "index").iterdir())
        known = load_facts(facts)
        start = time.perf_counter()
        for number in range(queries):
            related_words(known[number % len(known)], index, PARAGRAPHS)
        searched = time.perf_counter() - start
    return {
        "backend": backend,
        "articles": articles,
        "build (s)": round(built, 1),
        f"{queries} queries (s)": round(searched, 1),
        "index (MB)": round(size / 1e6, 1),
        "peak memory (MB)": round(peak() - before),
    }


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> int:
    """Measure, and write the table into a Markdown file."""
    parser = argparse.ArgumentParser(prog="benchmarks.retrieval", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="corpus, JSON lines")
    parser.add_argument(
        "--facts", type=Path, required=True, help="facts to search for, JSON lines; repeated if too few"
    )
    parser.add_argument("--articles", type=int, nargs="+", default=[2500, 5000, 10033], help="sizes of the corpus")
    parser.add_argument("--queries", type=int, default=10000, help="number of queries (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="a Markdown file with a place for the table")
    arguments = parser.parse_args()
    rows = []
    for backend in BACKENDS:
        for articles in arguments.articles:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                job = pool.submit(measure, backend, arguments.corpus, articles, arguments.facts, arguments.queries)
                rows.append(job.result())
            sys.stderr.write(f"{rows[-1]}\n")
    replace_table(arguments.out, pd.DataFrame(rows).to_markdown(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
