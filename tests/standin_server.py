"""A stand-in for the server inside Micro-Manager: speaks PyJavaZ's protocol in front of a real pymmcore demo camera.

Run as a program: `python standin_server.py '<json options>'` prints one line with its port. Then every line of JSON on stdin, such as
`["stopSequenceAcquisition"]` or `["setExposure", 5000.0]`, is done on the core as if somebody clicked in Micro-Manager, and answered.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pymmcore
import zmq
from mm_test_adapters import device_adapter_path

CORE, IMAGE = "mmcorej.CMMCore", "mmcorej.TaggedImage"
API: dict[str, tuple[tuple[str, ...], str]] = {
    "getCameraDevice": ((), "java.lang.String"),
    "getImageWidth": ((), "long"),
    "getImageHeight": ((), "long"),
    "getBytesPerPixel": ((), "long"),
    "getImageBitDepth": ((), "long"),
    "getNumberOfComponents": ((), "long"),
    "getNumberOfCameraChannels": ((), "long"),
    "getCameraChannelName": (("long",), "java.lang.String"),
    "getExposure": ((), "double"),
    "setExposure": (("double",), "void"),
    "getPixelSizeUm": ((), "double"),
    "getBufferTotalCapacity": ((), "int"),
    "getBufferFreeCapacity": ((), "int"),
    "getRemainingImageCount": ((), "int"),
    "initializeCircularBuffer": ((), "void"),
    "isBufferOverflowed": ((), "boolean"),
    "isSequenceRunning": ((), "boolean"),
    "getProperty": (("java.lang.String", "java.lang.String"), "java.lang.String"),
    "setProperty": (("java.lang.String", "java.lang.String", "java.lang.String"), "void"),
    "startContinuousSequenceAcquisition": (("double",), "void"),
    "startSequenceAcquisition": (("int", "double", "boolean"), "void"),
    "stopSequenceAcquisition": ((), "void"),
    "popNextTaggedImage": ((), IMAGE),
    "getIncludeSystemStateCache": ((), "boolean"),
    "setIncludeSystemStateCache": (("boolean",), "void"),
}


class Server:
    """One core, the objects handed out so far, one REP socket."""

    def __init__(self, config: str, buffer_mb: int, port: int, hide: list[str]) -> None:
        self.core = pymmcore.CMMCore()
        self.core.setDeviceAdapterSearchPaths([device_adapter_path()])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "standin.cfg"
            file.write_text(config)
            self.core.loadSystemConfiguration(str(file))
        self.core.setCircularBufferMemoryFootprint(buffer_mb)
        self.core.initializeCircularBuffer()
        self.state_cache = True
        self._hidden_tags = hide
        self._objects: dict[str, Any] = {}
        self._array_id = itertools.count(1)
        self._socket = zmq.Context.instance().socket(zmq.REP)
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def serve(self) -> None:
        while True:
            request = json.loads(self._socket.recv_multipart()[0].decode("iso-8859-1"))
            try:
                reply, parts = self._answer(request)
            except Exception as error:
                reply, parts = {"type": "exception", "value": f"java.lang.Exception: {error}\n\tat standin"}, []
            self._socket.send_multipart([json.dumps(reply).encode("iso-8859-1"), *parts])

    def _answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        command = request["command"]
        if command == "connect":
            return {"type": "none", "version": "5.1.0"}, []
        if command == "get-constructors":
            return {"type": "none", "api": [{"name": CORE, "arguments": []}]}, []
        if command == "constructor":
            return self._shadow(CORE, self.core), []
        if command == "destructor":
            self._objects.pop(request["hash-code"])
            return {"type": "none"}, []
        if command == "get-field":
            return self._field(self._objects[request["hash-code"]], request["name"])
        return self._run(request["name"], request["arguments"]), []

    def _shadow(self, java_class: str, target: Any) -> dict[str, Any]:
        code = f"{id(target):x}{uuid.uuid4()}"
        self._objects[code] = target
        api = (
            [{"name": n, "arguments": list(types), "return-type": back} for n, (types, back) in API.items()]
            if java_class == CORE
            else []
        )
        return {
            "type": "unserialized-object",
            "class": java_class,
            "hash-code": code,
            "port": self.port,
            "interfaces": [java_class, "java.lang.Object"],
            "fields": [] if java_class == CORE else ["pix", "tags"],
            "api": api,
        }

    def _run(self, name: str, arguments: list[Any]) -> dict[str, Any]:
        if name == "popNextTaggedImage":
            return self._shadow(IMAGE, self._pop())
        if name == "getIncludeSystemStateCache":
            return {"type": "primitive", "value": self.state_cache}
        if name == "setIncludeSystemStateCache":
            self.state_cache = arguments[0]
            return {"type": "none"}
        value = getattr(self.core, name)(*arguments)
        if value is None:
            return {"type": "none"}
        return {"type": "string" if isinstance(value, str) else "primitive", "value": value}

    def _pop(self) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        metadata = pymmcore.Metadata()
        pixels = self.core.popNextImageMD(0, 0, metadata)
        tags: dict[str, Any] = {key: metadata.GetSingleTag(key).GetValue() for key in metadata.GetKeys()}
        tags |= {"Width": int(tags["Width"]), "Height": int(tags["Height"]), "BitDepth": self.core.getImageBitDepth()}
        if self.state_cache:
            state = self.core.getSystemStateCache()
            settings = (state.getSetting(i) for i in range(state.size()))
            tags |= {f"{s.getDeviceLabel()}-{s.getPropertyName()}": s.getPropertyValue() for s in settings}
        return pixels, {name: value for name, value in tags.items() if name not in self._hidden_tags}

    def _field(
        self, image: tuple[np.ndarray[Any, Any], dict[str, Any]], name: str
    ) -> tuple[dict[str, Any], list[bytes]]:
        pixels, tags = image
        if name == "tags":
            return {"type": "object", "class": "JSONObject", "value": json.dumps(tags)}, []
        array_id = next(self._array_id)
        kind = "byte-array" if pixels.dtype.itemsize == 1 else "short-array"
        return {"type": kind, "value": f"[B@{array_id:x}"}, [array_id.to_bytes(4, sys.byteorder), pixels.tobytes()]


def obey(server: Server) -> None:
    """What somebody does in Micro-Manager's window, from stdin."""
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if name == "objects":
            value: Any = len(server._objects)
        elif name == "stateCache":
            value = server.state_cache
        else:
            value = getattr(server.core, name)(*arguments)
        print(json.dumps(value), flush=True)
    os._exit(0)  # whoever started us is gone


if __name__ == "__main__":
    server = Server(**json.loads(sys.argv[1]))
    print(server.port, flush=True)
    threading.Thread(target=obey, args=(server,), daemon=True).start()
    server.serve()
