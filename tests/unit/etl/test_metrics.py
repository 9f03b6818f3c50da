"""What a load tells Prometheus: the numbers of the file in hand, and of no other."""

from prometheus_client import CollectorRegistry

from etl.metrics import LoadMetrics
from etl.progress import Counters


def test_metrics_follow_one_file_after_the_other() -> None:
    """Each sample is that of the file that was followed last, at the moment of the question."""
    registry = CollectorRegistry()
    metrics = LoadMetrics()
    registry.register(metrics)
    assert registry.get_sample_value("lp_etl_bytes") == 0
    first, second = Counters(), Counters()
    metrics.follow(first, 100)
    first.processed.add(7)
    first.skipped.add(2)
    first.rejected.add(1)
    first.failed.add(3)
    first.bytes_done.add(60)
    rows = {
        outcome: registry.get_sample_value("lp_etl_rows", {"outcome": outcome})
        for outcome in ("processed", "skipped", "rejected")
    }
    assert rows == {"processed": 7, "skipped": 2, "rejected": 1}
    assert registry.get_sample_value("lp_etl_failed_batches") == 3
    assert registry.get_sample_value("lp_etl_bytes") == 100
    assert registry.get_sample_value("lp_etl_bytes_done") == 60
    metrics.follow(second, 50)
    assert registry.get_sample_value("lp_etl_bytes") == 50
    assert registry.get_sample_value("lp_etl_bytes_done") == 0
