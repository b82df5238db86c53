"""What a chip costs an hour, in USD: on demand, us-central1, without the host's disk and network.

Each figure is Google's list price as SkyPilot's catalog transcribes it (github.com/skypilot-org/skypilot-catalog,
catalogs/v8/gcp/vms.csv at commit 006059e0f18a, read on 2026-11-23), divided by the chips of the row's slice. Prices
change, and differ by region, commitment and spot: --config.price.usd_per_device_hour overrides them. The GPUs have no
row, because `w2sr plan` does not compile for them.
"""

from w2sr_jax.core.config import PriceConfig
from w2sr_jax.core.tool_config import PriceTable

CATALOG = "skypilot-catalog 006059e0f18a, read 2026-11-23: us-central1-a, on demand"


def get_config(variant: str | None = None) -> PriceTable:
    """No variants."""
    return PriceTable(
        prices={
            "v5e": PriceConfig(usd_per_device_hour=1.20, source=f"{CATALOG}, tpu-v5litepod-4 4.80"),
            "v5p": PriceConfig(usd_per_device_hour=4.20, source=f"{CATALOG}, tpu-v5p-9600 (4,800 chips) 20160.00"),
            "v6e": PriceConfig(usd_per_device_hour=2.70, source=f"{CATALOG}, tpu-v6e-8 21.60"),
        }
    )
