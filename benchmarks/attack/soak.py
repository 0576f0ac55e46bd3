"""Hundreds of jobs through one real server: what memory and handles it holds in the end, against a quarter of the way.

``python -m benchmarks.attack soak``: a job samples with a preset, saves one, reads prompts and makes a ballot; every
tenth is interrupted. Linux only: memory and handles are read from /proc.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from pathlib import Path

import qsched_core as qs
from scripts import server
from scripts.client import Client, PromptFailed, PromptInterrupted
from scripts.host import local_host

from .tally import Tally

JOBS = 300
EVERY_INTERRUPTED = 10
SETTLED = JOBS // 4
"""By then everything was loaded and every cache is full."""
MOST_GROWTH = 1.05
"""Memory at the end against a quarter of the way: the host's own jobs move it by 2 to 3 %."""
MOST_HANDLES = 8
MB = 1024**2
PRESET = qs.Preset(qs.Coefficients.ramp(4, c_x=(1.02, 1.0), c_eps=(0.98, 1.0)), (1.0, 0.75, 0.5, 0.25, 0.0))


def run() -> Tally:
    tally, memory, handles = Tally(), [], []
    with server.running(local_host(), Path(sys.executable), flags=[*server.CPU, "--cache-none"]) as comfy:
        qs.save_preset(PRESET, comfy.folder("models") / "qsched_presets" / "given.safetensors")
        for number in range(JOBS):
            _job(comfy.client, number, tally)
            memory.append(_resident(comfy.process.pid))
            handles.append(len(os.listdir(f"/proc/{comfy.process.pid}/fd")))
        left = [path.name for path in comfy.base.rglob("*.tmp")]
    window = max(1, JOBS // 10)
    early = statistics.median(memory[SETTLED - window // 2 : SETTLED + window // 2 + 1])
    late = statistics.median(memory[-window:])
    more = statistics.median_high(handles[-window:]) - statistics.median_high(handles[SETTLED : SETTLED + window])
    tally.figures = {
        "MB at a quarter": round(early / MB),
        "MB at the end": round(late / MB),
        "ratio": round(late / early, 4),
        "handles at a quarter": handles[SETTLED],
        "handles at the end": handles[-1],
        "temporary files left": len(left),
    }
    if late / early > MOST_GROWTH:
        tally.hurt(f"memory grew by {late / early:.3f}")
    if more > MOST_HANDLES or left:
        tally.hurt(f"{more} more handles, temporary files {left[:3]}")
    return tally


def _job(client: Client, number: int, tally: Tally) -> None:
    interrupted = number % EVERY_INTERRUPTED == EVERY_INTERRUPTED - 1
    prompt = client.submit(_graph(number, steps=200 if interrupted else 4))
    if interrupted:
        timer = threading.Thread(target=lambda: (time.sleep(0.7), client.interrupt(prompt)))
        timer.start()
    try:
        client.wait(prompt, timeout=300)
        tally.count("finished")
    except PromptInterrupted:
        tally.count("interrupted")
    except PromptFailed as error:
        tally.hurt(f"job {number}: {error}")
    if interrupted:
        timer.join()


def _graph(number: int, steps: int) -> dict:
    def node(kind: str, **inputs: object) -> dict:
        return {"class_type": kind, "inputs": inputs}

    sampling = {"steps": steps, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    texts = {"name": f"soak {number % 20}", "author": "", "license": "", "notes": ""}
    return {
        "1": node("QSchedDemoModel"),
        "2": node("CLIPTextEncode", clip=["1", 1], text=f"a large apple {number}"),
        "3": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "4": node(
            "QSchedQuantizeModel", model=["1", 0], format="w4a8", group_size="format's own", include="", exclude=""
        ),
        "5": node("QSchedLoadPreset", preset_name="given.safetensors"),
        "6": node(
            "QSchedSampler",
            model=["4", 0],
            positive=["2", 0],
            negative=["2", 0],
            latent_image=["3", 0],
            seed=number,
            preset=["5", 0],
            strength=1.0,
            if_preset_differs="resample",
            **sampling,
        ),
        "7": node("VAEDecode", samples=["6", 0], vae=["1", 2]),
        "8": node("EmptyImage", width=64, height=64, batch_size=1, color=number),
        "9": node("QSchedArena", without=["8", 0], with_preset=["7", 0], texts=["10", 1]),
        "10": node("QSchedPrompts", prompts="\n".join(f"prompt {number} {i}" for i in range(8))),
        "11": node("QSchedSavePreset", preset=["5", 0], thumbnail=["7", 0], **texts),
        "12": node("PreviewAny", source=["5", 1]),
    }


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
