"""
baresip calls `offhook serve` over TLS with SRTP, and each side must hear what the other one says.

Run by `make interop`. Four calls: SRTP mandatory (RTP/SAVP) to a project that requires it, the same as RTP/SAVPF, SRTP
optional (RTP/AVP with a=crypto) to a project that leaves it open, and a plain one that the first project must refuse.

The caller is silent, sends a tone, and is silent again. Offhook must hear exactly that: undecrypted sound would be
noise from the first packet to the last. Its voice is a tone of 440 Hz, which baresip must have in what it decoded.
baresip uses no loopback interface, so all of it happens in a network namespace with an interface of its own; that needs
root and ip.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import wave
from pathlib import Path
from typing import Any

import numpy as np

HOST, INTERFACE = "198.18.7.1", "offhook0"
HTTP_PORT, TLS_PORT = 18080, 15061
KEY = "sk-baresip"
MODULES = Path("/usr/lib/baresip/modules")
RATE = 8000
CALLER_HZ, AGENT_HZ = 700.0, 440.0
SAYS = "You said: something."

CONFIG = f"""
[server]
http = "{HOST}:{HTTP_PORT}"
https = ""
[sip]
listen = ["tls:{HOST}:{TLS_PORT}"]
[media]
bind = "{HOST}"
ports = "30000-30098"
[engine]
kind = "scripted"
"""
PROJECT = """
[[projects]]
id = "proj_{srtp}"
api_keys = ["{key}-{srtp}"]
srtp = "{srtp}"
fallback = {{accept = {{type = "realtime", model = "gpt-realtime", instructions = "Be brief."}}}}
[[projects.trunks]]
name = "baresip"
sources = ["198.18.7.0/24"]
"""
BARESIP = """
net_interface {interface}
sip_listen 0.0.0.0:0
sip_cafile {ca}
audio_player aubridge,nowhere
audio_source aufile,{folder}/says.wav
audio_alert aubridge,none
ausrc_srate 8000
auplay_srate 8000
rtp_ports 33000-33100
module_path {modules}
module g711.so
module aufile.so
module aubridge.so
module sndfile.so
module srtp.so
module_tmp account.so
module_app menu.so
snd_path {folder}
"""

CASES = {
    "srtp-mand": ("required", "RTP/SAVP"),
    "srtp-mandf": ("required", "RTP/SAVPF"),
    "srtp": ("optional", "RTP/AVP"),
    "": ("required", "RTP/AVP"),
}
"""What the account's `mediaenc` is; the project's `srtp`; the profile that baresip then offers."""


def write_speech(path: Path) -> None:
    """1.5 s of silence, 1 s of a tone, 2.5 s of silence; baresip hangs up when the file is over."""
    at = np.arange(5 * RATE) / RATE
    sound = np.where((at >= 1.5) & (at < 2.5), 9000 * np.sin(2 * np.pi * CALLER_HZ * at), 0.0)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(sound.astype("<i2").tobytes())


def get(srtp: str, path: str) -> Any:
    request = urllib.request.Request(
        f"http://{HOST}:{HTTP_PORT}/v1/realtime/calls{path}",
        headers={"Authorization": f"Bearer {KEY}-{srtp}"},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)["data"]


def start_server(folder: Path) -> subprocess.Popen[bytes]:
    config = folder / "offhook.toml"
    config.write_text(
        CONFIG + "".join(PROJECT.format(srtp=srtp, key=KEY) for srtp in ("required", "optional"))
    )
    log = (folder / "offhook.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "offhook", "serve", "--config", str(config)],
        stdout=log,
        stderr=log,
        env=os.environ | {"OFFHOOK_SERVER__DATA_DIR": str(folder / "data")},
    )
    log.close()
    for _ in range(300):
        if server.poll() is not None:
            raise SystemExit(f"offhook serve ended with {server.returncode}; its log is in {folder}")
        if b"offhook ready" in (folder / "offhook.log").read_bytes():
            return server
        time.sleep(0.1)
    server.kill()
    raise SystemExit(f"offhook serve is not ready after 30 s; its log is in {folder}")


def call(mediaenc: str, folder: Path) -> tuple[str, list[dict[str, Any]], Path | None]:
    """Place one call. Returns what baresip said, Offhook's timeline, and baresip's file of what it heard."""
    srtp, _ = CASES[mediaenc]
    home = folder / (mediaenc or "plain")
    home.mkdir()
    write_speech(home / "says.wav")
    ca = next((folder / "data").rglob("ca.pem"))
    (home / "config").write_text(BARESIP.format(interface=INTERFACE, ca=ca, folder=home, modules=MODULES))
    encryption = f";mediaenc={mediaenc}" if mediaenc else ""
    (home / "accounts").write_text(
        f"<sip:baresip@{HOST};transport=tls>;regint=0;audio_codecs=pcmu{encryption}\n"
    )
    (home / "contacts").write_text("")
    target = f"sip:proj_{srtp}@{HOST}:{TLS_PORT};transport=tls"
    done = subprocess.run(
        ["baresip", "-f", str(home), "-e", f"/dial {target}", "-t", "8", "-v"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode(errors="replace")
    (home / "baresip.log").write_text(said)
    newest = get(srtp, "")[0]
    for _ in range(30):
        if newest["state"] == "ended":
            break
        time.sleep(0.1)
        newest = get(srtp, "")[0]
    return said, get(srtp, f"/{newest['id']}/timeline"), next(home.glob("dump-*-dec.wav"), None)


def judge(mediaenc: str, said: str, timeline: list[dict[str, Any]], heard: Path | None) -> list[str]:
    faults = []

    def check(holds: object, fault: str) -> None:
        if not holds:
            faults.append(f"{mediaenc or 'plain'}: {fault}")

    srtp, profile = CASES[mediaenc]
    text = json.dumps(timeline)
    invite = next(entry["message"] for entry in timeline if entry["title"].startswith("INVITE"))
    check(f" {profile} " in invite, f"the offer is not {profile}")
    titles = [entry["title"] for entry in timeline]
    if not mediaenc:
        why = next((entry["cause"] for entry in timeline if "cause" in entry), "")
        print(f"{'plain':10} to {srtp}: {titles[-1]}", flush=True)
        check("SRTP is required" in why, f"it was not refused for want of SRTP but: {titles[-3:]}")
        check("488" in said, "baresip was not told 488")
        return faults
    keys = re.findall(r"inline:[^|\s\\]*", text)
    check(len(keys) >= 2 and set(keys) == {"inline:(redacted)"}, f"keys in the timeline: {len(keys)}")
    check("SRTP is Enabled" in said, "baresip did not enable SRTP")
    totals = next((entry for entry in timeline if entry["title"].startswith("rtp: ")), {})
    check(totals.get("srtp"), "Offhook used no SRTP")
    check(totals.get("replayed") == totals.get("malformed") == totals.get("foreign") == 0, f"{totals}")
    # Before it has keys, baresip opens the way through a NAT by an RTCP packet in the clear (APP, "PING"), or two.
    check(totals.get("unauthentic") in (1, 2), f"{totals.get('unauthentic')} packets were not authentic")
    check(totals.get("packets_in", 0) > 200, f"{totals.get('packets_in')} packets came")
    sound = next((entry["ms"] for entry in timeline if entry["title"].startswith("first packet")), 0.0)
    words = [entry["ms"] - sound for entry in timeline if entry["kind"] == "heard"]
    # The tone ends 2.5 s after the first packet; 0.5 s of silence later it counts as said, once.
    check(len(words) == 1 and 2_700 < words[0] < 3_600, f"Offhook heard something at {words} ms, not at 3000")
    level, share = measure(heard)
    check(share > 0.9, f"baresip heard {share:.0%} of its sound at {AGENT_HZ:.0f} Hz")
    print(
        f"{mediaenc:10} to {srtp}: {profile}, {totals.get('srtp')}, {totals.get('packets_in')} packets in, "
        f"{totals.get('packets_out')} out, {totals.get('unauthentic')} unauthentic; Offhook heard the caller at "
        f"{[round(at) for at in words]} ms; baresip heard {level:.1f} s of sound, {share:.0%} of it at 440 Hz",
        flush=True,
    )
    return faults


def measure(path: Path | None) -> tuple[float, float]:
    """Return the seconds of sound in a recording, and how much of its power is at the agent's pitch."""
    if path is None:
        return 0.0, 0.0
    with wave.open(str(path), "rb") as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    loud = [
        frame for frame in np.array_split(samples, max(1, len(samples) // (rate // 50))) if frame.std() > 300
    ]
    if not loud:
        return 0.0, 0.0
    sound = np.concatenate(loud)
    power = np.abs(np.fft.rfft(sound)) ** 2
    pitch = np.fft.rfftfreq(len(sound), 1 / rate)
    near = (pitch > AGENT_HZ - 40) & (pitch < AGENT_HZ + 40)
    return len(loud) / 50, float(power[near].sum() / power[1:].sum())


def run(folder: Path) -> list[str]:
    server = start_server(folder)
    try:
        faults = [fault for mediaenc in CASES for fault in judge(mediaenc, *call(mediaenc, folder))]
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            code = server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            code = server.wait()
    if code:
        faults.append(f"offhook serve ended with {code}")
    log = (folder / "offhook.log").read_text()
    if re.search(r"inline:(?!\(redacted\))", log):
        faults.append("a key is in the log")
    return faults


def in_a_namespace(folder: Path) -> int:
    space = f"oh-baresip-{os.getpid()}"
    enter = ["ip", "netns", "exec", space]
    subprocess.run(["ip", "netns", "add", space], check=True)
    try:
        for command in (
            ["link", "set", "lo", "up"],
            ["link", "add", INTERFACE, "type", "veth", "peer", "name", "offhook1"],
            ["addr", "add", f"{HOST}/24", "dev", INTERFACE],
            ["link", "set", INTERFACE, "up"],
            ["link", "set", "offhook1", "up"],
        ):
            subprocess.run([*enter, "ip", *command], check=True)
        inside = [*enter, sys.executable, __file__, "--folder", str(folder)]
        return subprocess.run(inside, timeout=120, check=False).returncode
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="for a run inside the namespace")
    arguments = parser.parse_args()
    if not shutil.which("baresip") or not (MODULES / "srtp.so").exists():
        raise SystemExit("baresip is missing: install Debian's baresip-core")
    if not shutil.which("ip"):
        raise SystemExit("ip is missing: install Debian's iproute2")
    if arguments.folder:
        faults = run(arguments.folder)
        if faults:
            raise SystemExit("\n".join(faults))
        return
    folder = Path(tempfile.mkdtemp(prefix="offhook-baresip-"))
    if in_a_namespace(folder):
        print(f"logs are in {folder}")
        raise SystemExit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
