"""The addresses of files and jobs: trails, exports, uploads."""

import base64
import binascii

from starlette.requests import Request
from starlette.responses import Response

from dvhflax import errors
from dvhflax.app import exports, faults, http, messages, upload_files
from dvhflax.app.desk import Desk

_MOST_HEADER = 4096


def routes(desk: Desk) -> list[http.Address]:
  """Method, address and endpoint of each."""
  api = _Files(desk)
  one, upload = http.SESSION, '/api/v1/uploads/{upload}'
  return [
    ('GET', f'{one}/trail', api.trail),
    ('GET', f'{one}/export', api.export),
    ('POST', f'{one}/deliverable', api.deliverable),
    ('GET', '/api/v1/jobs/{job}', api.job),
    ('DELETE', '/api/v1/jobs/{job}', api.stop),
    ('POST', '/api/v1/uploads', api.begin_upload),
    ('PUT', f'{upload}/files', api.upload_file),
    ('POST', f'{upload}/import', api.read_upload),
    ('DELETE', upload, api.delete_upload),
  ]


class _Files:
  """The endpoints."""

  def __init__(self, desk: Desk):
    self._desk = desk

  async def trail(self, request: Request) -> Response:
    # Also of a session that cannot be opened any more.
    await self._desk.loaded()
    path = self._desk.kept.find(request.path_params['session'])
    content = await self._desk.compute.run(path.read_bytes)
    return _attachment(content, 'application/json', 'dvhflax-trail.json')

  async def export(self, request: Request) -> Response:
    opened = await self._desk.opened(request.path_params['session'])
    query = request.query_params
    what, dose = query.get('what', ''), query.get('dose', '')
    kind = next((kind for kind in exports.KINDS if kind == what), None)
    if kind is None:
      raise errors.UserError(f'what: one of {", ".join(exports.KINDS)}')
    asked = await self._desk.doses.asked(opened, dose)
    content = await self._desk.files.run(exports.content, kind, asked)
    ending, media = exports.KINDS[kind]
    return _attachment(content, media, f'dvhflax-{dose}{ending}')

  async def deliverable(self, request: Request) -> Response:
    opened = await self._desk.opened(request.path_params['session'])
    body = await http.body(request, messages.MOST_BYTES)
    asked: messages.Deliverable = messages.read(body, messages.Deliverable)
    job = await self._desk.deliver(opened, asked.dose)
    return http.answer({'job': job.key})

  async def job(self, request: Request) -> Response:
    job = self._desk.jobs.find(request.path_params['job'])
    return http.answer(job.to_json())

  async def stop(self, request: Request) -> Response:
    job = await self._desk.jobs.stop(request.path_params['job'])
    return http.answer(job.to_json())

  async def begin_upload(self, request: Request) -> Response:
    body = await http.body(request, messages.MOST_BYTES)
    asked: messages.NewUpload = messages.read(body, messages.NewUpload)
    upload = self._desk.uploads.begin(asked.kind)
    return http.answer({'upload': upload.key})

  async def upload_file(self, request: Request) -> Response:
    upload = self._desk.uploads.find(request.path_params['upload'])
    path = _path(request.headers.get('x-path', ''))
    content = http.chunks(request, upload_files.MOST_FILE_BYTES, 'the file')
    return http.answer({'bytes': await upload.add(path, content)})

  async def read_upload(self, request: Request) -> Response:
    body = await http.body(request, messages.MOST_BYTES)
    asked: messages.Import = messages.read(body, messages.Import)
    found = await self._desk.read_upload(request.path_params['upload'], asked)
    return http.answer(
      {
        'report': found.report,
        'patients': [entry.key for entry in found.patients],
        'failed': found.failed,
        'structures': found.structures,
        'names': found.names,
      }
    )

  async def delete_upload(self, request: Request) -> Response:
    await self._desk.delete_upload(request.path_params['upload'])
    return http.answer({})


def _attachment(content: bytes, media: str, name: str) -> Response:
  headers = {'Content-Disposition': f'attachment; filename="{name}"'}
  return Response(content, media_type=media, headers=headers)


def _path(header: str) -> str:
  """Of the header X-Path: base64url of UTF-8, with or without padding.

  Raises:
    UserError: for anything else.
  """
  if not header or len(header) > _MOST_HEADER:
    raise faults.TooLarge('the header X-Path is missing or too long')
  try:
    padded = header + '=' * (-len(header) % 4)
    content = base64.b64decode(padded.encode('ascii'), b'-_', validate=True)
    return content.decode('utf-8')
  except (binascii.Error, ValueError):
    raise errors.UserError(
      'the header X-Path is not the base64url of a path in UTF-8'
    ) from None
