"""Whether a model's servers can do what a job needs, found out before anything is begun."""

import json
from typing import TYPE_CHECKING

from marathon_pipeline.annotators.served.endpoints import urls_of
from marathon_pipeline.annotators.served.pool import UNREADABLE, key_of, rejected
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.errors import UserError

if TYPE_CHECKING:
    from openai import OpenAI

_TIMEOUT = 30.0
_WORD = "marathon"


def check(settings: ModelSettings) -> None:
    """Raises UserError where no endpoint answers, or where one that does lacks the model, its context or schemas."""
    import openai

    unreachable: list[str] = []
    for url in urls_of(settings):
        client = openai.OpenAI(base_url=url, api_key=key_of(settings) or "none", max_retries=0, timeout=_TIMEOUT)
        try:
            _has_model(client, settings, url)
            _obeys_schemas(client, settings, url)
            return
        except openai.APIStatusError as error:
            raise UserError(rejected(settings, url, error.status_code, str(error.message)).message) from None
        except openai.APIConnectionError as error:
            unreachable.append(f"{url} ({error.__cause__ or error})")
        except (openai.OpenAIError, *UNREADABLE) as error:
            raise UserError(f"{settings.model} at {url}: not an OpenAI-compatible server ({error})") from None
        finally:
            client.close()
    where = ", ".join(unreachable) or str(settings.endpoints)
    raise UserError(f"{settings.model}: no server answers at {where}; start one, or correct `endpoints`")


def _has_model(client: "OpenAI", settings: ModelSettings, url: str) -> None:
    models = {model.id: model for model in client.models.list()}
    if settings.model not in models:
        there = ", ".join(sorted(models)) or "no model"
        raise UserError(f"{url} serves {there}, and not {settings.model}; correct `model`, or serve it")
    longest = getattr(models[settings.model], "max_model_len", None)  # vLLM's
    if isinstance(longest, int) and longest < settings.context_tokens:
        raise UserError(
            f"{settings.model} at {url} holds {longest:,} tokens, the job's context_tokens is "
            f"{settings.context_tokens:,}; lower it, or serve the model with a longer context"
        )


def _obeys_schemas(client: "OpenAI", settings: ModelSettings, url: str) -> None:
    """Ask for something else than the schema allows: who answers by the schema obeys it."""
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": [_WORD]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    completion = client.chat.completions.create(
        model=settings.model,
        messages=[{"role": "user", "content": "Say hello."}],
        max_tokens=64,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "support_check", "strict": True, "schema": schema},
        },
    )
    said = completion.choices[0].message.content or ""
    try:
        obeyed = json.loads(said, strict=False) == {"word": _WORD}
    except (ValueError, RecursionError):
        obeyed = False
    if not obeyed:
        raise UserError(
            f"{settings.model} at {url} does not obey response_format with a JSON schema (it said {said[:60]!r}); "
            "serve it by something that does, such as vLLM"
        )
