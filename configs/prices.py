"""What a device costs an hour, in USD: on demand, us-central1 or eu-north1, without disk and network.

Each figure is a list price as SkyPilot's catalog transcribes it (github.com/skypilot-org/skypilot-catalog, the row of
catalogs/v8/ that `source` names), divided by the devices of the row. TPUs are Google's, without their host; GPUs and
CPUs are Nebius's, with 16 cores and 200 GiB beside a GPU and 4 GiB beside a core. Keys: the chips of `w2sr plan`, GPUs
as JAX names them, and vcpu, of which a machine without an accelerator has as many as its threads.

Prices change, and differ by provider (the same GPU by a factor of several), region, commitment and spot:
--config.price.usd_per_device_hour and --config.price.source say yours.
"""

from w2sr_jax.core.config import PriceConfig
from w2sr_jax.core.tool_config import PriceTable

CATALOG = "skypilot-catalog 006059e0f18a, read 2026-11-23: us-central1-a, on demand"
NEBIUS = "skypilot-catalog 0082b0435f39, catalogs/v8/nebius/vms.csv, read 2026-11-25: on demand"


def get_config(variant: str | None = None) -> PriceTable:
    """No variants."""
    return PriceTable(
        prices={
            "v5e": PriceConfig(usd_per_device_hour=1.20, source=f"{CATALOG}, tpu-v5litepod-4 4.80"),
            "v5p": PriceConfig(usd_per_device_hour=4.20, source=f"{CATALOG}, tpu-v5p-9600 (4,800 chips) 20160.00"),
            "v6e": PriceConfig(usd_per_device_hour=2.70, source=f"{CATALOG}, tpu-v6e-8 21.60"),
            "NVIDIA H100 80GB HBM3": PriceConfig(
                usd_per_device_hour=2.95, source=f"{NEBIUS}, eu-north1, gpu-h100-sxm_8gpu-128vcpu-1600gb 23.60"
            ),
            "NVIDIA H200": PriceConfig(
                usd_per_device_hour=3.50, source=f"{NEBIUS}, us-central1, gpu-h200-sxm_8gpu-128vcpu-1600gb 28.00"
            ),
            "vcpu": PriceConfig(usd_per_device_hour=0.0248, source=f"{NEBIUS}, us-central1, cpu-d3_4vcpu-16gb 0.0992"),
        }
    )
