"""LiteLLM, which speaks as several of the others do."""

import os

# It would fetch a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

from checks import MODEL, SAMPLE, URL, WORDS, check, run, same  # noqa: E402

litellm.telemetry = False


def transcribe(model, base, **options):
    with SAMPLE.open("rb") as file:
        return litellm.transcription(
            model=model, file=file, api_base=base, api_key="unused", max_retries=0, timeout=60, **options
        )


@check
def as_openai():
    # It asks for verbose_json by itself.
    same(transcribe(f"openai/{MODEL}", f"{URL}/v1").text, WORDS)


@check
def as_vllm():
    same(transcribe(f"hosted_vllm/{MODEL}", f"{URL}/v1").text, WORDS)


@check
def as_mistral():
    model = "mistral/voxtral-mini-transcribe-realtime-2602"
    same(transcribe(model, f"{URL}/v1").text, WORDS)


@check
def text():
    same(transcribe(f"openai/{MODEL}", f"{URL}/v1", response_format="text").text.strip(), WORDS)


run()
