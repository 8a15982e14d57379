"""What a model was configured with stays with it: in every face, in every artefact."""

import json
import logging
import traceback
from contextlib import suppress
from typing import Any, TypedDict

import pytest
from integration_tests.clients import close_clients
from integration_tests.misbehaving import Misbehaving, Reply, completion
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps
from langchain_nvidia_ai_endpoints import ChatNVIDIA
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from langchain_slm import ChatRouter, Plan, Router, open_store, record, rewrite
from langchain_slm.routing.plan_file import write_plan
from langchain_slm.routing.telemetry import OpenTelemetryListener
from langchain_slm.schema import Binding, Decision, ModelSpec

NAMES = (
    "api-key",
    "header",
    "bearer",
    "query",
    "extra-body",
    "model-kwargs",
    "url-user",
    "url-password",
    "metadata",
    "environment",
    "custom-headers",
    "nvidia-key",
    "nvidia-header",
    "plan-key",
)
CANARY = {name: f"canary-{name}-0a1b2c3d4e5f" for name in NAMES}
WAYS = ("invoke", "ainvoke", "stream", "astream")
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY["environment"])
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Env: {CANARY['custom-headers']}")
    monkeypatch.setenv("PLAN_KEY", CANARY["plan-key"])


def configured(url: str) -> list[BaseChatModel]:
    """Models that were given secrets in every way there is."""
    with_user = url.replace(
        "http://", f"http://{CANARY['url-user']}:{CANARY['url-password']}@"
    )
    return [
        ChatOpenAI(
            model="all-at-once",
            base_url=with_user,
            api_key=CANARY["api-key"],
            default_headers={
                "X-Secret": CANARY["header"],
                "X-Auth": f"Bearer {CANARY['bearer']}",
            },
            default_query={"secret": CANARY["query"]},
            extra_body={"a": {"secret": CANARY["extra-body"]}},
            model_kwargs={"extra_query": {"auth_token": CANARY["model-kwargs"]}},
            metadata={"api_key": CANARY["metadata"]},
        ),
        ChatOpenAI(model="of-the-environment", base_url=url),
        ChatNVIDIA(
            model="of-nvidia",
            base_url=url,
            api_key=CANARY["nvidia-key"],
            default_headers={"X-Secret": CANARY["nvidia-header"]},
        ),
    ]


class Told(BaseCallbackHandler):
    """All that callbacks, and so traces, are told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.texts.append(repr((args, kwargs)))

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.texts.append(repr((error, kwargs)))

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.texts.append(repr((args, kwargs)))


class Seen:
    """Everything that an app, its logs or its traces could show."""

    def __init__(self) -> None:
        self.told, self.texts, self.spans = Told(), list[str](), InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.listeners = [OpenTelemetryListener(provider), self.ended]

    def ended(self, decided: object) -> None:
        self.texts.append(repr(decided))

    def raised(self, error: BaseException) -> None:
        self.texts += ["".join(traceback.format_exception(error)), repr(error)]
        self.texts.append(repr(vars(error)))

    def all(self, caplog: pytest.LogCaptureFixture) -> str:
        spans = [span.to_json() for span in self.spans.get_finished_spans()]
        return "\n".join([*self.texts, *self.told.texts, *spans, caplog.text])


def leaked(text: str) -> list[str]:
    return [name for name, canary in CANARY.items() if canary in text]


async def asked(model: Any, way: str, question: Any, config: Any) -> Any:
    match way:
        case "invoke":
            return model.invoke(question, config)
        case "ainvoke":
            return await model.ainvoke(question, config)
        case "stream":
            return list(model.stream(question, config))
        case _:
            return [part async for part in model.astream(question, config)]


class Echoing(Misbehaving):
    """Refuses each request, and quotes all of it."""

    def __init__(self, status: int) -> None:
        super().__init__(self._refused)
        self._status = status

    def _refused(self, number: int, body: Any) -> Reply:
        quoted = {"head": self.heads[-1], "path": self.paths[-1], "body": body}
        error = {"message": f"refused: {json.dumps(quoted)}", "code": "sorry"}
        return Reply({"error": error}, self._status)


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture) -> Seen:
    caplog.set_level(logging.DEBUG, logger="langchain_slm")
    for name in ("httpx", "httpx2", "urllib3"):
        caplog.set_level(logging.INFO, logger=name)
    return Seen()


@every_way
@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("status", [401, 500])
async def test_a_router_shows_no_secret_of_a_bound_model(
    way: str, index: int, status: int, seen: Seen, caplog: pytest.LogCaptureFixture
):
    healthy = Misbehaving(lambda number, body: completion())
    with Echoing(status) as endpoint, healthy:
        bound = configured(endpoint.url)[index]
        default = ChatNVIDIA(model="healthy", base_url=healthy.url, api_key="any-key")
        router = Router({"": bound}, listeners=seen.listeners)
        chat = ChatRouter(default=default, router=router)
        with suppress(Exception):
            answer = await asked(chat, way, "hello", {"callbacks": [seen.told]})
            seen.texts.append(repr(answer))
        assert len(endpoint.asked) == 1
        seen.texts += [repr(chat), str(chat), dumps(chat), str(router.explain(""))]
        seen.texts += [repr(router.counters()), json.dumps(chat.asdict())]
        await close_clients(bound)
    assert leaked(seen.all(caplog)) == []


@every_way
@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("status", [401, 404])
async def test_a_router_shows_no_secret_of_its_default(
    way: str, index: int, status: int, seen: Seen, caplog: pytest.LogCaptureFixture
):
    with Echoing(status) as endpoint:
        default = configured(endpoint.url)[index]
        chat = ChatRouter(default=default, router=Router({}, listeners=seen.listeners))
        with pytest.raises(Exception) as raised:  # noqa: PT011 - of any client
            await asked(chat, way, "hello", {"callbacks": [seen.told]})
        seen.raised(raised.value)
        seen.texts += [repr(chat), str(chat), dumps(chat)]
        await close_clients(default)
    assert leaked(seen.all(caplog)) == []


class State(TypedDict, total=False):
    text: str


def graph_of(model: BaseChatModel) -> Any:
    async def anode(state: State) -> State:
        return {"text": (await model.ainvoke(state["text"])).text}

    builder = StateGraph(State)
    builder.add_node("node", anode)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile()


@pytest.mark.parametrize("index", range(3))
async def test_a_rewritten_and_recorded_graph_shows_no_secret(
    index: int, seen: Seen, caplog: pytest.LogCaptureFixture, tmp_path: Any
):
    healthy = Misbehaving(lambda number, body: completion())
    with Echoing(500) as endpoint, healthy:
        source = ChatNVIDIA(model="healthy", base_url=healthy.url, api_key="any-key")
        bound = configured(endpoint.url)[index]
        router = Router({"node": bound}, listeners=seen.listeners)
        with open_store(f"sqlite:///{tmp_path}/slm.db") as store:
            graph = record(rewrite(graph_of(source), router), store)
            config = {"callbacks": [seen.told]}
            assert (await graph.ainvoke({"text": "hello"}, config))["text"] == "yes"
            assert store.count() == 1
        await close_clients(bound)
        assert len(endpoint.asked) == 1
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    seen.texts += [data.decode("utf-8", "replace") for data in files]
    assert leaked(seen.all(caplog)) == []


async def test_a_plan_holds_the_name_of_a_key_and_never_the_key(
    seen: Seen, caplog: pytest.LogCaptureFixture, tmp_path: Any
):
    with Echoing(401) as endpoint:
        spec = ModelSpec(
            name="slm",
            provider="openai",
            model="slm",
            base_url=endpoint.url,
            api_key_env="PLAN_KEY",
        )
        decision = Decision(
            site="",
            reference="all-at-once",
            decision="proven",
            model="slm",
            reason="as good",
            threshold=1.0,
            binding=Binding(model=spec),
        )
        plan = Plan(graph="g", created="", margin=0.05, alpha=0.05, decisions=(decision,))
        path = tmp_path / "slm-plan.json"
        write_plan(plan, path)
        default = configured(endpoint.url)[0]
        chat = ChatRouter(default=default, plan=path)
        with pytest.raises(Exception) as raised:  # noqa: PT011 - of any client
            await chat.ainvoke("hello", {"callbacks": [seen.told]})
        assert endpoint.keys[0] == f"Bearer {CANARY['plan-key']}"
        seen.raised(raised.value)
        seen.texts += [repr(chat), dumps(chat), path.read_text()]
        (bound,) = chat._router._guide.models
        await close_clients(bound, default)
    assert leaked(seen.all(caplog)) == []
