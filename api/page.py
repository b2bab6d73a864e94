"""The explorer page at `/` and its assets: public, since they hold no data."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

PAGE_PATH, ASSETS_PATH = "/", "/assets/{version}/{name:path}"

_INDEX = "index.html"
_HTML = "text/html"
_MEDIA_TYPES = {
    ".html": f"{_HTML}; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# The chart puts in one <style>, whose text never changes within a version of it.
_CHART_STYLE = "'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='"
_POLICY = (
    "default-src 'self'; script-src 'self'; img-src 'self' data:; "
    f"style-src 'self' {_CHART_STYLE}; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_IMMUTABLE = "public, max-age=31536000, immutable"
# Where the page's own addresses begin; the version in them changes with every byte of an asset.
_PLACEHOLDER = b"/assets/VERSION/"
# The browser fetches every module at once, instead of finding them one by one.
_PRELOAD = b'<link rel="modulepreload" href="/assets/VERSION/main.js">\n'
_VERSION_LENGTH = 12


@dataclass(frozen=True, slots=True)
class _Asset:
    content: bytes
    packed: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class _PageAsset:
    version: str
    assets: Mapping[str, _Asset]


def add_page(app: FastAPI) -> None:
    """Add the page and its assets; neither stands in the description of the interface."""
    app.add_route(PAGE_PATH, _get_page, ["GET"], include_in_schema=False)
    app.add_route(ASSETS_PATH, _get_asset, ["GET"], include_in_schema=False)


async def _get_page(request: Request) -> Response:
    """Answer with the page, or with the documentation's address without HTML."""
    if _HTML not in request.headers.get("Accept", ""):
        pointers = {"docs": "/docs", "openapi": "/openapi.json"}
        return JSONResponse(pointers, headers={"Vary": "Accept"})
    headers = {"Content-Security-Policy": _POLICY, "Vary": "Accept, Accept-Encoding"}
    return _respond(request, _page().assets[_INDEX], headers)


async def _get_asset(request: Request) -> Response:
    """Answer with an asset of this version; that of another one is not here."""
    version, name = request.path_params["version"], request.path_params["name"]
    page = _page()
    if version != page.version or name not in page.assets:
        raise HTTPException(404, "no such asset of this version: load the page again")
    headers = {"Cache-Control": _IMMUTABLE, "Vary": "Accept-Encoding"}
    return _respond(request, page.assets[name], headers)


def _respond(request: Request, asset: _Asset, headers: Mapping[str, str]) -> Response:
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers = {**headers, "Content-Encoding": "gzip"}
        return Response(asset.packed, headers=headers, media_type=asset.media_type)
    return Response(asset.content, headers=dict(headers), media_type=asset.media_type)


@cache
def _page() -> _PageAsset:
    """Read all files of the page once; they are few, and part of the installation."""
    contents = dict(_walk(files("api") / "static", ""))
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(f"{name} {len(contents[name])} ".encode() + contents[name])
    version = digest.hexdigest()[:_VERSION_LENGTH]
    modules = [name.encode() for name in sorted(contents) if "/" not in name and ".js" in name]
    preloads = b"".join(_PRELOAD.replace(b"main.js", module) for module in modules)
    address = _PLACEHOLDER.replace(b"VERSION", version.encode())
    index = contents[_INDEX].replace(_PRELOAD, preloads)
    contents[_INDEX] = index.replace(_PLACEHOLDER, address)
    return _PageAsset(version, {name: _asset(name, content) for name, content in contents.items()})


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        elif _suffix(entry.name) in _MEDIA_TYPES:
            found.append((f"{prefix}{entry.name}", entry.read_bytes()))
    return found


def _asset(name: str, content: bytes) -> _Asset:
    packed = gzip.compress(content, compresslevel=9, mtime=0)
    return _Asset(content, packed, _MEDIA_TYPES[_suffix(name)])


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2]}"
