"""The offline teacher as a litellm provider: `offline/banking`, `offline/banking-weak` and `offline/banking-judge`.

It is simulated: a grammar writes the messages, a linear reader understands them and the policy table decides. It gets
everything from the rendered prompts, as a hosted model would, and answers the same request alike in every process.
"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import litellm

from datagen.offline import MODELS
from datagen.offline import faults as f
from datagen.offline.knowledge import MERCHANTS, PLACES, find_entities
from datagen.offline.messages import ABSTAIN, ADVERSARIAL_KINDS, LABELS, LEAVES, OTHER, rewrite, write, write_adversarial
from datagen.offline.reading import Reading, read
from datagen.policy import Fact, Rule, decide, read_facts

FACTS = {"days": Fact(entity="when", parse="days"), "amount": Fact(entity="amount", parse="number")}
DOMAIN = "the offline teacher only knows the banking support domain"
_OPENINGS = (
    ("You write realistic inputs", "write"),
    ("You rewrite inputs", "rewrite"),
    ("You write hard inputs", "adversarial"),
    ("You write inputs that trip a model", "failures"),
    ("You judge answers to this task", "judge"),
    ("You compare two answers to this task", "compare"),
)
_WRITES = ("write", "rewrite", "adversarial", "failures")
_TRIPPED = ("two_intents", "negation", "noise", "credential_bait")  # what trips a student most, whatever it is shown
_RULE = re.compile(r"^- (\w+): (.*) -> (.*)$")
_CRITERION = re.compile(r"^Criterion (\w+):", re.MULTILINE)
_LABELS_HEAD = re.compile(r"^Values of (\w+):$")
_LINE = re.compile(r"^([A-Z][a-z_ ]*): (.*)$")
_NOT_DIMENSIONS = frozenset({"Topic", "About", "Seed", "Number of inputs", "Neighbouring topics", "Kind of difficulty"})


class UnreadablePrompt(ValueError):
    """The prompt is not one that this teacher knows."""


class Ask(NamedTuple):
    """What a system message asks for. `labels` and `rules` are empty for the writing asks, `criteria` where there is no rubric."""

    step: str
    label_field: str
    labels: tuple[str, ...]
    rules: tuple[Rule, ...]
    criteria: tuple[str, ...] = ()


def _condition(text: str) -> tuple[str, Any]:
    name, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if rest.startswith("in "):
        return name, rest[3:].strip().split("|")
    if rest.startswith("= "):
        return name, rest[2:].strip()
    if rest in ("known", "missing") or rest[:1] in "<>=":
        return name, rest
    raise UnreadablePrompt(f"{DOMAIN}; the policy condition {text!r} is not readable")


def parse_rule(line: str) -> Rule | None:
    """A line of the prompt's policy table, like `- R3: intent = a, days >= 10 -> decision: wait`, or None if it is no rule."""
    match = _RULE.match(line)
    if not match:
        return None
    conditions = [] if match.group(2) == "always" else match.group(2).split(", ")
    when = dict(_condition(part) for part in conditions)
    then = dict(part.split(": ", 1) for part in match.group(3).split(", "))
    return Rule(id=match.group(1), when=when, then=then)


@lru_cache(maxsize=64)
def parse_system(text: str) -> Ask:
    """What a system message asks. Raises UnreadablePrompt where it is none of the prompts, or of another domain."""
    if not re.search(r"\bbank", text):
        raise UnreadablePrompt(f"{DOMAIN}; the prompt does not speak of a bank. Use a hosted teacher for other taxonomies")
    step = next((step for opening, step in _OPENINGS if text.startswith(opening)), "")
    if not step:
        step = "reason" if "Think step by step, one short sentence a step" in text else "answer"
    label_field, labels, rules, in_labels = "", [], [], False
    for line in text.splitlines():
        head = _LABELS_HEAD.match(line)
        if head:
            label_field, in_labels = head.group(1), True
        elif in_labels and line.startswith("- "):
            labels.append(line[2:].split(":", 1)[0])
        elif line.startswith("Policy table"):
            in_labels = False
        elif not in_labels and line.startswith("- ") and "->" in line:
            rule = parse_rule(line)
            if rule:
                rules.append(rule)
        elif line and labels:
            in_labels = False
    if step not in _WRITES:
        if not labels:
            raise UnreadablePrompt(f"{DOMAIN}; the prompt has no list `Values of ...:` of the intents")
        unknown = sorted(set(labels) - set(LABELS.values()))
        if unknown:
            raise UnreadablePrompt(f"{DOMAIN}; it does not know the label {unknown[0]!r}")
    return Ask(step, label_field, tuple(labels), tuple(rules), tuple(_CRITERION.findall(text)))


class Order(NamedTuple):
    """What a writing prompt orders."""

    leaf: str
    number: int
    dimensions: dict[str, str]
    facts: dict[str, str]
    seed: str
    kind: str


@lru_cache(maxsize=256)
def _leaf(path: str, about: str, seed: str) -> str:
    if path in LABELS:
        return path
    for leaf, label in LABELS.items():
        if label != ABSTAIN and label.lower() in re.split(r"[/\s]", path.lower()):
            return leaf
    label = read(seed or about).label
    return next((leaf for leaf in LEAVES if LABELS[leaf] == label), OTHER)


def parse_order(text: str) -> Order:
    """The order of a writing prompt's user message. Raises UnreadablePrompt where the topic or number is missing."""
    fields: dict[str, str] = {}
    facts: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("Facts that each input states"):
            for part in line.split(": ", 1)[1].split("; "):
                name, _, value = part.partition(" = ")
                facts[name.strip()] = value.strip()
            continue
        match = _LINE.match(line)
        if match:
            fields.setdefault(match.group(1), match.group(2).strip())
    if "Topic" not in fields or not fields.get("Number of inputs", "").isdigit():
        raise UnreadablePrompt(f"{DOMAIN}; the prompt lacks a line `Topic: ...` or `Number of inputs: ...`")
    seed = fields.get("Seed", "")
    dimensions = {name.lower().replace(" ", "_"): value.split(" - ", 1)[0] for name, value in fields.items() if name not in _NOT_DIMENSIONS}
    kind = fields.get("Kind of difficulty", "").split(" - ", 1)[0]
    return Order(_leaf(fields["Topic"], fields.get("About", ""), seed), int(fields["Number of inputs"]), dimensions, facts, seed, kind)


@lru_cache(maxsize=4)
def _lines_of(path: str) -> tuple[str, ...]:
    """Texts of a JSONL file (field `text`) or plain lines, to be copied as contamination."""
    texts = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.strip():
            row = json.loads(line) if line.lstrip().startswith("{") else line.strip()
            texts.append(str(row["text"]) if isinstance(row, dict) else row)
    return tuple(texts)


def _one_message(ask: Ask, order: Order, rng: random.Random) -> str:
    if ask.step == "adversarial":
        return write_adversarial(order.leaf, order.kind, order.dimensions, rng)
    if ask.step == "failures":
        return write_adversarial(order.leaf, rng.choice(_TRIPPED), order.dimensions, rng)
    if ask.step == "rewrite":
        return rewrite(order.leaf, order.seed, order.dimensions, rng)
    return write(order.leaf, order.dimensions, order.facts, rng)


def answer_of(ask: Ask, label: str, entities: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The right answer for a label and entities by the prompt's own policy table, and the rules that were used."""
    fields, used = decide(ask.rules, {ask.label_field: label, **read_facts(entities, FACTS)})
    answer: dict[str, Any] = {ask.label_field: label}
    if "urgency" in fields:
        answer["urgency"] = fields["urgency"]
    answer["entities"] = dict(entities)
    for name in ("decision", "reason", "ask"):
        if name in fields:
            answer[name] = fields[name]
    if "decision" in answer and "reason" not in answer:
        setter = next(rule.id for rule in ask.rules if rule.id in used and "decision" in rule.then)
        answer = {
            **{k: v for k, v in answer.items() if k != "ask"},
            "reason": setter,
            **({"ask": answer["ask"]} if "ask" in answer else {}),
        }
    return answer, used


def compact(answer: Mapping[str, Any]) -> str:
    """The canonical text of an answer."""
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def _allowed(ask: Ask, reading: Reading) -> str:
    if reading.label in ask.labels:
        return reading.label
    return ABSTAIN if ABSTAIN in ask.labels else reading.second if reading.second in ask.labels else ask.labels[0]


def steps_of(ask: Ask, answer: Mapping[str, Any], used: list[str]) -> list[str]:
    """The way to an answer in short sentences that name the rules."""
    label, entities = answer[ask.label_field], answer["entities"]
    steps = [f"The message asks for {label}." if label != ABSTAIN else "The message is about nothing on the list, so out_of_scope."]
    facts = read_facts(entities, FACTS)
    for name, fact in FACTS.items():
        if name in facts and fact.entity in entities:
            steps.append(f'"{entities[fact.entity]}" gives {name} = {facts[name]:g}.')
    for rule in ask.rules:
        if rule.id in used:
            tests = [f"{name} {condition}" for name, condition in rule.when.items() if name != ask.label_field]
            sets = ", ".join(f"{field} {value}" for field, value in rule.then.items() if field != "reason")
            steps.append(f"{rule.id}{' (' + ', '.join(tests) + ')' if tests else ''}: {sets}.")
    return steps


def _read_json(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


_SECRET = re.compile(r"\b(?:pin|cvv|cvc|password|passcode|security code|card number)\b", re.IGNORECASE)


def score_answer(ask: Ask, text: str, answer_text: str) -> tuple[int, str]:
    """An answer's score from 1 to 5 with the reason, by the rule engine and the teacher's own reading of the message."""
    answer = _read_json(answer_text)
    if answer is None:
        return 1, "The answer is not one JSON object."
    entities = answer.get("entities")
    if any(_SECRET.search(str(v)) for k, v in answer.items() if k != ask.label_field):
        return 1, "The answer asks for or repeats a secret."
    if not isinstance(entities, dict):
        return 2, "The answer has no entities object."
    label = _allowed(ask, read(text))
    given = answer.get(ask.label_field)
    if given != label:
        return (1 if label == ABSTAIN else 2), f"The message asks for {label}, not {given}."
    invented = sorted(name for name, value in entities.items() if str(value) not in text)
    if invented:
        return 2, f"The entity {invented[0]} is not in the message."
    right, _ = answer_of(ask, label, {str(k): str(v) for k, v in entities.items()})
    wrong = sorted(name for name in ("urgency", "decision", "reason", "ask") if right.get(name) != answer.get(name))
    if wrong:
        return 3, f"{wrong[0]} should be {right.get(wrong[0])} by the policy."
    missed = sorted(set(find_entities(text)) - set(entities))
    if missed:
        return 4, f"The entity {missed[0]} was left out."
    return 5, "Every field is right."


def score_input(text: str) -> int:
    """How natural an input is, from 1 to 5."""
    if re.search(r"\bas an ai\b|language model", text, re.IGNORECASE) or len(text) > 1500:
        return 1
    if re.search(r"(?:\d[ -]?){13,}|\S@\S", text):
        return 2
    if len(re.findall(r"\w+", text)) < 2:
        return 3
    return 4 if re.search(r"\b(um|uh|erm)\b", text) or text.isupper() else 5


class OfflineTeacher(litellm.CustomLLM):
    """The provider; register it with `datagen.offline.register`. `side_file` receives a line for each fault."""

    def __init__(self) -> None:
        super().__init__()
        self.side_file: Path | None = None
        self._attempts: Counter[str] = Counter()

    def completion(self, *args: Any, **kwargs: Any) -> Any:
        """The synchronous door of litellm, for scripts; inside a running loop use `acompletion`."""
        return asyncio.run(self.acompletion(*args, **kwargs))

    async def acompletion(
        self,
        model: str,
        messages: list[Any],
        *args: Any,
        model_response: Any = None,
        optional_params: dict[str, Any] | None = None,
        litellm_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer one chat request.

        Raises litellm.BadRequestError for an unknown model, fault or prompt, and litellm.RateLimitError where that fault strikes.
        """
        rates = dict((optional_params or {}).get("faults") or {})
        metadata = (litellm_params or {}).get("metadata") or {}
        request_id = str(metadata.get("request_id") or f"{model}:{json.dumps(messages, sort_keys=True, default=str)}")
        if model not in MODELS:
            raise litellm.BadRequestError(
                f"unknown model offline/{model}; {DOMAIN}: use offline/banking, offline/banking-weak or offline/banking-judge",
                model=model, llm_provider="offline",
            )  # fmt: skip
        try:
            f.check_rates(rates)
            await self._transport(request_id, model, rates)
            rng = random.Random(request_id)
            text, finish = self._respond(model, messages, rates, request_id, rng)
        except (UnreadablePrompt, ValueError, OSError) as error:
            raise litellm.BadRequestError(str(error), model=model, llm_provider="offline") from error
        return _fill(model_response or litellm.ModelResponse(), model, messages, text, finish)

    async def _transport(self, request_id: str, model: str, rates: Mapping[str, Any]) -> None:
        """Rate limits and slowness. The coin falls anew at each attempt, so a retry gets through."""
        if not (rates.get("rate_limited") or rates.get("slow")):
            return
        self._attempts[request_id] += 1
        attempt = self._attempts[request_id]
        coin = random.Random(f"{request_id}/transport/{attempt}")
        if coin.random() < float(rates.get("rate_limited", 0.0)):
            f.record(self.side_file, f.Fault(request_id, "rate_limited", {"attempt": attempt}))
            raise litellm.RateLimitError("the offline teacher simulates a rate limit; try again", model=model, llm_provider="offline")
        if coin.random() < float(rates.get("slow", 0.0)):
            f.record(self.side_file, f.Fault(request_id, "slow", {"seconds": 0.2, "attempt": attempt}))
            await asyncio.sleep(0.2)

    def _respond(self, model: str, messages: list[Any], rates: dict[str, Any], request_id: str, rng: random.Random) -> tuple[str, str]:
        system = "\n".join(str(m["content"]) for m in messages if m["role"] == "system").strip()
        user = next((str(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
        ask = parse_system(system)

        def note(kind: str, **detail: Any) -> None:
            f.record(self.side_file, f.Fault(request_id, kind, detail))

        if ask.step in ("judge", "compare"):
            return (_judge if ask.step == "judge" else _compare)(ask, user, rates, rng, note), "stop"
        if ask.step in _WRITES:
            return _write(ask, parse_order(user), system, rates, rng, note)
        if model == "banking-weak":
            return _answer_weakly(ask, user, rates or f.WEAK_DEFAULTS, rng, note), "stop"
        return _answer(ask, user, rates, rng, note)


def _write(ask: Ask, order: Order, system: str, rates: Mapping[str, Any], rng: random.Random, note: Any) -> tuple[str, str]:
    """A JSON list of distinct messages, with the faults of the writing step."""
    if ask.step == "adversarial" and order.kind not in ADVERSARIAL_KINDS:
        raise UnreadablePrompt(f"{DOMAIN}; it does not know the kind of difficulty {order.kind!r}")
    struck = f.draw(f.CALL_FAULTS["write"], rates, rng)
    whole = struck == "refusal" and rng.random() < 0.5
    if whole:
        text = rng.choice(f.REFUSALS)
        note("refusal", step=ask.step, text=text)
        return text, "stop"
    messages: list[str] = []
    for _ in range(order.number * 6):
        if len(messages) == order.number:
            break
        message = _one_message(ask, order, rng)
        if message not in messages and message != order.seed:
            messages.append(message)
    for i, original in enumerate(messages):
        kind = f.draw(f.MESSAGE_FAULTS, rates, rng)
        if kind == "near_duplicate":
            if i:
                source = max(messages[:i], key=len)
            else:  # nothing beside it to copy: one of two messages that this topic always has at hand
                source = _one_message(ask, order, random.Random(f"{order.leaf}/{order.kind}/pool/{rng.randrange(2)}"))
            messages[i] = f.light_edit(source, rng)
            note(kind, step=ask.step, text=messages[i], of=source)
        elif kind == "pii":
            sentence, data = f.personal_data(rng)
            messages[i] = f"{original} {sentence}"
            note(kind, step=ask.step, text=messages[i], data=data)
        elif kind == "contaminated":
            messages[i] = rng.choice(_lines_of(str(rates["contaminated_from"])))
            note(kind, step=ask.step, text=messages[i])
        elif kind is not None:
            messages[i] = _spoilt(kind, original, system, rng)
            note(kind, step=ask.step, text=messages[i])
    if struck == "refusal" and messages:
        at = rng.randrange(len(messages))
        messages[at] = rng.choice(f.REFUSALS)
        note("refusal", step=ask.step, text=messages[at])
    text = json.dumps(messages, ensure_ascii=False)
    if struck == "truncated":
        text = text[: int(len(text) * rng.uniform(0.3, 0.9))]
        note("truncated", step=ask.step, text=text)
        return text, "length"
    return text, "stop"


def _spoilt(kind: str, text: str, system: str, rng: random.Random) -> str:
    """A message with a fault of form."""
    if kind == "repetition":
        return f.looped(text, rng)
    if kind == "placeholder":
        return f.with_placeholder(text, rng)
    if kind == "leaked_prompt":
        return f.with_prompt(text, system, rng)
    if kind == "secret":
        return f"{text} {f.secret(rng)[0]}"
    return f.inner_refusal(text, rng) if kind == "inner_refusal" else f.foreign(rng)


def _invent(text: str, entities: dict[str, str], rng: random.Random) -> tuple[str, str]:
    """Name and value of an entity that the message does not hold."""
    name, pool = rng.choice((("merchant", MERCHANTS), ("place", PLACES)))
    return name, rng.choice([value for value in pool if value.lower() not in text.lower()])


def _confused(ask: Ask, reading: Reading, label: str, rng: random.Random) -> str:
    if reading.second in ask.labels and reading.second != label and rng.random() < 0.7:
        return reading.second
    return rng.choice([other for other in ask.labels if other not in (label, ABSTAIN)])


def _answer(ask: Ask, text: str, rates: Mapping[str, Any], rng: random.Random, note: Any) -> tuple[str, str]:
    """The answer to a message, or its steps and answer, with the faults of the answering step."""
    reading = read(text)
    label, entities = _allowed(ask, reading), find_entities(text)
    struck = f.draw(f.CALL_FAULTS["answer"], rates, rng)
    if struck == "refusal":
        refusal = rng.choice(f.REFUSALS)
        note(struck, step=ask.step, text=refusal, input=text)
        return refusal, "stop"
    if struck == "wrong_label":
        wrong = _confused(ask, reading, label, rng)
        note(struck, step=ask.step, field=ask.label_field, value=wrong, right=label, input=text)
        label = wrong
    answer, used = answer_of(ask, label, entities)
    if struck == "invented_entity":
        name, value = _invent(text, entities, rng)
        answer["entities"] = {**entities, name: value}
        note(struck, step=ask.step, field=f"entities.{name}", value=value, input=text)
    elif struck == "asks_pin":
        answer["ask"] = "pin"
        note(struck, step=ask.step, field="ask", value="pin", input=text)
    steps = steps_of(ask, answer, used)
    whole = compact(answer) if ask.step == "answer" else compact({"steps": steps, "answer": answer})
    if struck == "invalid_json":
        whole = f.break_json(whole, rng)
        note(struck, step=ask.step, text=whole, input=text)
    elif struck == "truncated":
        whole = whole[: int(len(whole) * rng.uniform(0.3, 0.9))]
        note(struck, step=ask.step, text=whole, input=text)
        return whole, "length"
    return whole, "stop"


_BEFORE = (
    "Sure! Here is the answer you asked for:\n",
    "Let me think about this message. The customer seems worried. ",
    "Of course, happy to help. ",
)
_AFTER = (
    "\nI hope this helps! Let me know if you need anything else.",
    "\nPlease note that I may be wrong.",
    " This is because the customer says so.",
)


def _answer_weakly(ask: Ask, text: str, rates: Mapping[str, Any], rng: random.Random, note: Any) -> str:
    """A careless model's answer: the teacher's understanding with bad behaviour at the given rates."""
    reading = read(text)
    label, entities = _allowed(ask, reading), find_entities(text)
    struck = f.draw(f.CALL_FAULTS["weak_abstain" if label == ABSTAIN else "weak"], rates, rng)
    if struck in ("confusable_intent", "missed_out_of_scope", "needless_refusal"):
        # both ways of being wrong about the scope: pairs of one kind alone would teach a student to decline, or never to
        wrong = ABSTAIN if struck == "needless_refusal" else _confused(ask, reading, label, rng)
        note(struck, step="weak", field=ask.label_field, value=wrong, right=label, input=text)
        label = wrong
    answer, used = answer_of(ask, label, entities)
    if struck == "invented_entity":
        name, value = _invent(text, entities, rng)
        answer["entities"] = {**entities, name: value}
        note(struck, step="weak", field=f"entities.{name}", value=value, input=text)
    elif struck == "asks_pin":
        answer["ask"] = rng.choice(("pin", "cvv", "password"))
        note(struck, step="weak", field="ask", value=answer["ask"], input=text)
    whole = compact(answer)
    if ask.step == "reason":
        whole = compact({"steps": steps_of(ask, answer, used), "answer": answer})
    if struck == "invalid_json":
        whole = f.break_json(whole, rng)
        note(struck, step="weak", text=whole, input=text)
    elif struck == "rambles":
        whole = rng.choice(
            (f"{rng.choice(_BEFORE)}{whole}", f"{whole}{rng.choice(_AFTER)}", f"{rng.choice(_BEFORE)}{whole}{rng.choice(_AFTER)}")
        )
        note(struck, step="weak", text=whole, input=text)
    return whole


def _parts(user: str, *heads: str) -> list[str]:
    """The sections of a judge's user message."""
    if not user.startswith("Input:\n"):
        raise UnreadablePrompt(f"{DOMAIN}; the judge's prompt does not start with `Input:`")
    rest, sections = user[len("Input:\n") :], []
    for head in reversed(heads):
        rest, mark, section = rest.rpartition(f"\n\n{head}:\n")
        if not mark:
            raise UnreadablePrompt(f"{DOMAIN}; the judge's prompt lacks `{head}:`")
        sections.append(section.strip())
    return [rest.strip(), *reversed(sections)]


def _judge(ask: Ask, user: str, rates: Mapping[str, Any], rng: random.Random, note: Any) -> str:
    text, answer = _parts(user, "Answer")
    score, reason = score_answer(ask, text, answer)
    if f.draw(f.CALL_FAULTS["judge"], rates, rng):
        noisy = rng.choice([n for n in (score - 2, score - 1, score + 1, score + 2) if 1 <= n <= 5])
        note("judge_noise", step="judge", value=noisy, right=score, input=text)
        score = noisy
    if ask.criteria:
        natural = ("input", "natural", "naturalness", "realism")
        scores = {name: score_input(text) if name in natural else score for name in ask.criteria}
        return json.dumps({"reasons": dict.fromkeys(ask.criteria, reason), **scores}, ensure_ascii=False)
    return json.dumps({"answer": score, "input": score_input(text), "reason": reason}, ensure_ascii=False)


def _compare(ask: Ask, user: str, rates: Mapping[str, Any], rng: random.Random, note: Any) -> str:
    text, first, second = _parts(user, "Answer A", "Answer B")
    (a, why_a), (b, why_b) = score_answer(ask, text, first), score_answer(ask, text, second)
    better = "tie" if a == b else "A" if a > b else "B"
    reason = why_a if a < b else why_b
    if f.draw(f.CALL_FAULTS["judge"], rates, rng):
        noisy = rng.choice([word for word in ("A", "B", "tie") if word != better])
        note("judge_noise", step="compare", value=noisy, right=better, input=text)
        better = noisy
    return json.dumps({"better": better, "reason": reason}, ensure_ascii=False)


def _fill(response: Any, model: str, messages: list[Any], text: str, finish: str) -> Any:
    """litellm's response object; tokens are estimated as four characters each, the price is nothing."""
    prompt_tokens = sum(len(str(m.get("content") or "")) for m in messages) // 4
    completion_tokens = max(1, len(text) // 4)
    response.model = f"offline/{model} (simulated)"
    response.choices[0].message.content = text
    response.choices[0].message.role = "assistant"
    response.choices[0].finish_reason = finish
    response.usage = litellm.Usage(
        prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=prompt_tokens + completion_tokens
    )
    return response
