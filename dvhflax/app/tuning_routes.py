"""The addresses that begin and change sessions."""

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dvhflax import errors
from dvhflax.app import faults, http, messages, state
from dvhflax.app.desk import Desk
from dvhflax.app.opened import Opened
from dvhflax.tuning.goals import known


def routes(desk: Desk) -> list[http.Address]:
  """Method, address and endpoint of each."""
  api = _Tuning(desk)
  one = http.SESSION
  return [
    ('POST', '/api/v1/sessions', api.begin),
    ('GET', one, api.state),
    ('DELETE', one, api.delete),
    ('POST', f'{one}/steps', api.tune),
    ('PATCH', f'{one}/steps/{{number}}', api.rename),
    ('POST', f'{one}/undo', api.undo),
    ('POST', f'{one}/redo', api.redo),
    ('POST', f'{one}/balanced', api.balanced),
    ('PUT', f'{one}/locked', api.lock),
    ('PUT', f'{one}/goals', api.goals),
    ('GET', '/api/v1/templates', api.templates),
    ('PUT', '/api/v1/templates/{key}', api.put_template),
    ('DELETE', '/api/v1/templates/{key}', api.delete_template),
  ]


class _Tuning:
  """The endpoints."""

  def __init__(self, desk: Desk):
    self._desk = desk

  async def begin(self, request: Request) -> Response:
    body = await http.body(request, messages.MOST_TRAIL_BYTES)
    asked: messages.NewSession = messages.read(body, messages.NewSession)
    await self._desk.loaded()
    trail = bytes(asked.trail)
    if bool(asked.patient) == bool(trail):
      raise errors.UserError('give either a patient or a trail')
    if trail:
      opened = await self._desk.resume(trail)
    else:
      opened = await self._desk.begin(asked.patient)
    return await self._state(opened)

  async def state(self, request: Request) -> Response:
    return await self._state(await self._opened(request))

  async def delete(self, request: Request) -> Response:
    await self._desk.loaded()
    await self._desk.delete(request.path_params['session'])
    return http.answer({})

  async def tune(self, request: Request) -> Response:
    opened, wish = await self._asked(request, messages.Wish)
    return await self._change(opened, opened.tune, wish)

  async def undo(self, request: Request) -> Response:
    opened = await self._opened(request)
    return await self._change(opened, opened.session.undo)

  async def redo(self, request: Request) -> Response:
    opened = await self._opened(request)
    return await self._change(opened, opened.session.redo)

  async def balanced(self, request: Request) -> Response:
    opened = await self._opened(request)
    return await self._change(opened, opened.session.balanced)

  async def rename(self, request: Request) -> Response:
    opened, asked = await self._asked(request, messages.StepChange)
    text = request.path_params['number']
    digits = text.isascii() and text.isdecimal() and len(text) < 10
    number = int(text) if digits else -1
    if number not in [step.number for step in opened.session.steps]:
      raise faults.NotThere(f'there is no step {errors.shown(text)}')
    return await self._change(
      opened, opened.session.rename, number, asked.name, asked.note
    )

  async def lock(self, request: Request) -> Response:
    opened, names = await self._asked(request, messages.Texts)
    return await self._change(opened, opened.session.lock, names)

  async def goals(self, request: Request) -> Response:
    opened, goals = await self._asked(request, messages.Texts)
    return await self._change(opened, opened.set_goals, goals)

  async def templates(self, _: Request) -> Response:
    cohort = (await self._desk.loaded())[1]
    found = await self._desk.files.run(self._desk.templates.all)
    listed = []
    for template in found:
      goals = known(template.goals, cohort.structures)
      if goals:
        listed.append(
          {
            'key': template.name,
            'name': template.name,
            'site': template.site or None,
            'source': template.source or None,
            'goals': goals,
            'built_in': template.built_in,
          }
        )
    return http.answer(listed)

  async def put_template(self, request: Request) -> Response:
    body = await http.body(request, messages.MOST_BYTES)
    given: messages.Template = messages.read(body, messages.Template)
    await self._desk.files.run(
      self._desk.templates.put,
      request.path_params['key'],
      given.goals,
      given.site,
    )
    return await self.templates(request)

  async def delete_template(self, request: Request) -> Response:
    key = request.path_params['key']
    await self._desk.files.run(self._desk.templates.delete, key)
    return await self.templates(request)

  async def _asked(self, request: Request, kind: Any) -> tuple[Opened, Any]:
    opened = await self._opened(request)
    body = await http.body(request, messages.MOST_BYTES)
    return opened, messages.read(body, kind)

  async def _opened(self, request: Request) -> Opened:
    return await self._desk.opened(request.path_params['session'])

  async def _change(
    self, opened: Opened, function: Callable[..., Any], *arguments: Any
  ) -> Response:
    async with opened.changing:
      await self._desk.compute.run(function, *arguments)
      await self._desk.save(opened)
      return await self._state(opened)

  async def _state(self, opened: Opened) -> Response:
    return http.answer(await self._desk.compute.run(state.state, opened))
