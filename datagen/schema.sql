-- The store of one recipe: what was asked, what was answered, what was made of it, and who decided what.
-- Tables are made once (and changed by the migrations in store.py); views are made anew whenever this text changes.

CREATE TABLE IF NOT EXISTS settings (name VARCHAR, value VARCHAR);
COMMENT ON TABLE settings IS 'Values that views need: seed and shares of the split, the recipe''s name, the store''s version.';

CREATE TABLE IF NOT EXISTS runs (
    id VARCHAR, command VARCHAR, started TIMESTAMP, finished TIMESTAMP, status VARCHAR, recipe JSON, versions JSON,
    terms JSON);
COMMENT ON TABLE runs IS 'One row per command that wrote here: when, with which recipe and versions, and how it ended.';
COMMENT ON COLUMN runs.terms IS 'How the terms of each teacher stood: what the table said, and the decision of whoever overrode it.';

CREATE TABLE IF NOT EXISTS calls (
    id VARCHAR, item_id VARCHAR, prompt VARCHAR, role VARCHAR, model VARCHAR, messages STRUCT(role VARCHAR, content VARCHAR)[],
    params JSON, sample VARCHAR, text VARCHAR, reasoning VARCHAR, finish_reason VARCHAR, prompt_tokens BIGINT,
    completion_tokens BIGINT, cached_tokens BIGINT, cost_usd DOUBLE, latency_s DOUBLE, attempts INTEGER, run_id VARCHAR,
    created_at TIMESTAMP);
COMMENT ON TABLE calls IS 'Every answered teacher call, also those whose answer was of no use. id = hash of all that was asked.';
COMMENT ON COLUMN calls.prompt IS 'Prompt file and the hash of its text: answer@3f2a91c4.';
COMMENT ON COLUMN calls.sample IS 'item/attempt/draw: keeps equal prompts of two items, or of two tries, apart.';

CREATE TABLE IF NOT EXISTS failures (
    request_id VARCHAR, item_id VARCHAR, prompt VARCHAR, role VARCHAR, model VARCHAR, error VARCHAR, message VARCHAR,
    run_id VARCHAR, created_at TIMESTAMP);
COMMENT ON TABLE failures IS 'Attempts that got no answer: rate limits, timeouts, refused connections. Not billed by a provider.';

CREATE TABLE IF NOT EXISTS items (
    id VARCHAR, topic VARCHAR, generator VARCHAR, count INTEGER, plan JSON, status VARCHAR, error VARCHAR,
    example_ids VARCHAR[], planned BOOLEAN, run_id VARCHAR);
COMMENT ON TABLE items IS 'The plan: one row per piece of work, with how it ended (done, empty, failed) and the examples it now stands for.';

CREATE TABLE IF NOT EXISTS examples (
    id VARCHAR, item_id VARCHAR, topic VARCHAR, generator VARCHAR, prompt STRUCT(role VARCHAR, content VARCHAR)[],
    completion VARCHAR, rejected VARCHAR, reasoning VARCHAR, answer JSON, label VARCHAR, kind VARCHAR, dimensions JSON,
    scores JSON, calls VARCHAR[], parent VARCHAR, run_id VARCHAR);
COMMENT ON TABLE examples IS 'Everything that was ever made. Nothing is deleted: see the views accepted and rejected.';
COMMENT ON COLUMN examples.label IS 'The label that a right answer has, where it is known before anyone answers.';
COMMENT ON COLUMN examples.parent IS 'The example that a person edited into this one.';

CREATE TABLE IF NOT EXISTS verdicts (example_id VARCHAR, decided_by VARCHAR, keep BOOLEAN, reason VARCHAR, created_at TIMESTAMP);
COMMENT ON TABLE verdicts IS 'Keep or drop, by a filter (filter:NAME, made anew by every curate) or a person (human:NAME).';

CREATE TABLE IF NOT EXISTS groups (example_id VARCHAR, group_id VARCHAR);
COMMENT ON TABLE groups IS 'Examples that are near-duplicates of one another share a group; a group never straddles a split.';

-- VIEWS

CREATE OR REPLACE VIEW current_examples AS
    SELECT e.* FROM examples e
    WHERE e.parent IS NOT NULL OR e.id IN (SELECT unnest(example_ids) FROM items WHERE planned AND NOT coalesce(stale, false));
COMMENT ON VIEW current_examples IS 'Examples that the present plan stands for: what an earlier prompt, teacher or plan made is not among them.';

CREATE OR REPLACE VIEW missing AS
    SELECT id AS item_id, topic, generator, p.inputs, p.reason, p.message, p.cost_usd
    FROM (SELECT id, topic, generator, unnest(problems) AS p FROM items WHERE planned) ORDER BY id;
COMMENT ON VIEW missing IS 'Inputs that the present plan asked for and did not get: how many, why, and what they cost.';

CREATE OR REPLACE VIEW decisions AS
    WITH people AS (
        SELECT example_id, arg_max(keep, created_at) AS keep, arg_max(decided_by, created_at) AS decided_by, arg_max(reason, created_at) AS reason
        FROM verdicts WHERE decided_by LIKE 'human:%' GROUP BY example_id),
    drops AS (
        SELECT example_id, list({'by': decided_by, 'reason': reason} ORDER BY decided_by = 'filter:judge', decided_by) AS reasons
        FROM verdicts WHERE decided_by LIKE 'filter:%' AND NOT keep GROUP BY example_id),
    filters AS (
        SELECT example_id, bool_and(keep) AS keep, any_value(reasons[1].by) AS decided_by, any_value(reasons[1].reason) AS reason
        FROM verdicts LEFT JOIN drops USING (example_id) WHERE decided_by LIKE 'filter:%' GROUP BY example_id)
    SELECT e.id AS example_id, coalesce(p.keep, f.keep, false) AS keep,
           coalesce(p.decided_by, f.decided_by, CASE WHEN f.keep THEN 'filters' ELSE 'not curated yet' END) AS decided_by, CASE WHEN p.example_id IS NULL THEN f.reason ELSE p.reason END AS reason
    FROM current_examples e
    LEFT JOIN people p ON p.example_id = e.id LEFT JOIN filters f ON f.example_id = e.id;
COMMENT ON VIEW decisions IS 'The last word on every current example: a person''s latest verdict, or else that of the filters (of several that drop it, the judge speaks last).';

CREATE OR REPLACE VIEW splits AS
    SELECT e.id AS example_id, coalesce(g.group_id, e.id) AS group_id,
           CASE WHEN u < test THEN 'test' WHEN u < test + validation THEN 'validation' ELSE 'train' END AS split
    FROM current_examples e LEFT JOIN groups g ON g.example_id = e.id
    CROSS JOIN (SELECT coalesce(max(value) FILTER (name = 'seed'), '0') AS seed,
                       coalesce(max(value) FILTER (name = 'split.test')::DOUBLE, 0.1) AS test,
                       coalesce(max(value) FILTER (name = 'split.validation')::DOUBLE, 0.1) AS validation FROM settings),
    LATERAL (SELECT ('0x' || md5(seed || coalesce(g.group_id, e.id))[:8])::UBIGINT / 4294967296.0 AS u);
COMMENT ON VIEW splits IS 'Group and split of every current example, kept or not: a hash of the group, so stable as the data grows.';

CREATE OR REPLACE VIEW accepted AS
    SELECT e.*, d.decided_by, s.group_id, s.split
    FROM current_examples e JOIN decisions d ON d.example_id = e.id JOIN splits s ON s.example_id = e.id
    WHERE d.keep;
COMMENT ON VIEW accepted IS 'Examples fit for training, with their split: a hash of the group, so stable as the data grows.';

CREATE OR REPLACE VIEW rejected AS
    SELECT e.*, d.decided_by, d.reason FROM current_examples e JOIN decisions d ON d.example_id = e.id WHERE NOT d.keep;
COMMENT ON VIEW rejected IS 'Examples that are not fit, by whom and why.';

CREATE OR REPLACE VIEW sft AS
    SELECT prompt, [{'role': 'assistant', 'content': completion}] AS completion, id, group_id, split, topic, generator,
           label, kind, reasoning, dimensions::VARCHAR AS dimensions
    FROM accepted;
COMMENT ON VIEW sft IS 'TRL''s conversational prompt-completion rows.';

CREATE OR REPLACE VIEW preference AS
    SELECT prompt, [{'role': 'assistant', 'content': completion}] AS chosen,
           [{'role': 'assistant', 'content': a.rejected}] AS rejected, id, group_id, split, topic, generator, label, kind,
           a.dimensions::VARCHAR AS dimensions
    FROM accepted a WHERE a.rejected IS NOT NULL;
COMMENT ON VIEW preference IS 'TRL''s conversational prompt-chosen-rejected rows.';

CREATE OR REPLACE VIEW unpaired AS
    WITH drops AS (
        SELECT example_id, bool_and(CASE decided_by
            WHEN 'filter:truth' THEN true
            WHEN 'filter:verify' THEN NOT regexp_matches(reason, '^(verifier_failed|rejected_right):')
            WHEN 'filter:judge' THEN NOT regexp_matches(reason, '^judge_(input|missing):')
            ELSE false END) AS of_the_answer
        FROM verdicts WHERE decided_by LIKE 'filter:%' AND NOT keep GROUP BY example_id),
    wrong AS (
        SELECT r.*, s.group_id, s.split FROM rejected r JOIN splits s ON s.example_id = r.id LEFT JOIN drops d ON d.example_id = r.id
        WHERE coalesce(d.of_the_answer, r.decided_by LIKE 'human:%')
          AND (coalesce(r.reason, '') NOT LIKE 'edited: %' OR EXISTS (FROM examples n WHERE n.parent = r.id AND n.prompt = r.prompt))
          AND EXISTS (FROM verdicts v WHERE v.example_id = r.id AND v.decided_by = 'filter:decontaminate' AND v.keep))
    SELECT prompt, [{'role': 'assistant', 'content': completion}] AS completion, label, decided_by, reason, id, group_id, split, topic,
           generator, kind, reasoning, dimensions::VARCHAR AS dimensions
    FROM (SELECT prompt, completion, true AS label, decided_by, NULL AS reason, id, group_id, split, topic, generator, kind, reasoning, dimensions
          FROM accepted
          UNION ALL BY NAME
          SELECT prompt, completion, false AS label, decided_by, reason, id, group_id, split, topic, generator, kind, reasoning, dimensions
          FROM wrong)
    QUALIFY row_number() OVER (PARTITION BY prompt, completion ORDER BY label DESC, id) = 1;
COMMENT ON VIEW unpaired IS 'TRL''s unpaired rows: accepted answers (label true), and those that a person, a judge or known truth found wrong (false). What was dropped for another reason, too, is not among them.';

CREATE OR REPLACE VIEW grounding AS
    SELECT id, split, topic, generator, completion AS answer, grounding->>'$.passage.source' AS source,
           grounding->>'$.passage.section' AS section, grounding->>'$.passage.id' AS passage_id,
           (grounding->>'$.shown')::BOOLEAN AS shown, grounding->>'$.quote' AS quote,
           (grounding->>'$.start')::INTEGER AS quote_start, (grounding->>'$.end')::INTEGER AS quote_end,
           grounding->>'$.passage.text' AS passage
    FROM accepted WHERE grounding IS NOT NULL;
COMMENT ON VIEW grounding IS 'Training rows that were made from documents: file, section, passage, and the words that prove the answer.';

CREATE OR REPLACE VIEW coverage AS
    SELECT topic, generator, coalesce(t.rows, CASE WHEN quotas THEN 0 ELSE i.asked END, 0) AS target, coalesce(i.asked, 0) AS asked,
           coalesce(e.examples, 0) AS examples, coalesce(e.accepted, 0) AS accepted, coalesce(i.items, 0) AS items,
           coalesce(i.failed, 0) AS failed,
           round(coalesce(e.accepted, 0) / coalesce(t.rows, i.asked), 3) AS share
    FROM (SELECT topic, generator, sum(count) AS asked, count(*) AS items, count(*) FILTER (status = 'failed') AS failed
          FROM items WHERE planned GROUP BY ALL) i
    FULL JOIN targets t USING (topic, generator)
    LEFT JOIN (SELECT topic, generator, count(*) AS examples, count(*) FILTER (keep) AS accepted
               FROM current_examples JOIN decisions ON example_id = id GROUP BY ALL) e USING (topic, generator)
    CROSS JOIN (SELECT count(*) > 0 AS quotas FROM targets)
    ORDER BY ALL;
COMMENT ON VIEW coverage IS 'By topic and generator: rows wanted (with a quota; else the inputs asked for), inputs asked for, and what came of them.';

CREATE OR REPLACE VIEW evaluation_hits AS
    WITH hits AS (
        SELECT example_id, regexp_extract(reason, '^decontaminate: (.*) (\S+) row (\d+)$', ['match', 'evaluation_set', 'row']) AS hit
        FROM verdicts WHERE decided_by = 'filter:decontaminate' AND NOT keep),
    exams AS (
        SELECT name, sha256, texts, name AS shown FROM evaluation_sets QUALIFY row_number() OVER (PARTITION BY name ORDER BY checked_at DESC) = 1
        UNION ALL SELECT name, sha256, texts, name || '@' || sha256[:8] FROM evaluation_sets)
    SELECT hit.evaluation_set, hit.row::BIGINT AS row, count(*) AS examples, list(DISTINCT hit.match ORDER BY hit.match) AS matches,
           any_value(texts[hit.row::BIGINT]) AS text, list(example_id ORDER BY example_id) AS example_ids
    FROM hits LEFT JOIN exams ON shown = hit.evaluation_set GROUP BY ALL ORDER BY examples DESC, 1, 2;
COMMENT ON VIEW evaluation_hits IS 'Which rows of which evaluation set were found in the data, how they were found, and in which examples.';

CREATE OR REPLACE VIEW costs AS
    SELECT role, model, split_part(prompt, '@', 1) AS prompt, count(*) AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,
           sum(cached_tokens)::BIGINT AS cached_tokens, sum(completion_tokens)::BIGINT AS completion_tokens,
           sum(cost_usd) AS cost_usd, round(avg(latency_s), 4) AS mean_latency_s
    FROM calls GROUP BY ALL ORDER BY cost_usd DESC, calls DESC, role, model, prompt;
COMMENT ON VIEW costs IS 'Calls, tokens and money by role, model and prompt; answers of no use are counted too: they were paid.';

CREATE OR REPLACE VIEW spending AS
    SELECT day, model, role, generator, sum(calls)::BIGINT AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,
           sum(completion_tokens)::BIGINT AS completion_tokens, sum(cost_usd) AS cost_usd, sum(unanswered)::BIGINT AS unanswered,
           sum(unknown_usd) AS unknown_usd
    FROM (SELECT created_at::DATE AS day, model, role, split_part(item_id, ':', -2) AS generator, 1 AS calls, prompt_tokens,
                 completion_tokens, cost_usd, 0 AS unanswered, 0.0 AS unknown_usd FROM calls
          UNION ALL
          SELECT created_at::DATE, model, role, split_part(item_id, ':', -2), 0, 0, 0, 0.0, 1,
                 CASE WHEN billed = 'maybe' THEN worst_usd ELSE 0.0 END FROM failures)
    GROUP BY ALL ORDER BY ALL;
COMMENT ON VIEW spending IS 'Calls and money by day, model, role and generator; unknown_usd: the most that attempts without an answer can have cost.';

CREATE OR REPLACE VIEW lineage AS
    WITH used AS (SELECT id AS example_id, unnest(calls) AS call_id FROM examples),
    shares AS (SELECT call_id, count(*) AS sharers FROM used GROUP BY call_id),
    asked AS (
        SELECT u.example_id, sum(c.prompt_tokens / s.sharers) AS prompt_tokens,
               sum(c.completion_tokens / s.sharers) AS completion_tokens, sum(c.cost_usd / s.sharers) AS cost_usd,
               list({'role': c.role, 'model': c.model, 'prompt': c.prompt, 'call_id': c.id, 'cost_usd': round(c.cost_usd / s.sharers, 12)}
                    ORDER BY c.created_at, c.id) AS asked
        FROM used u JOIN calls c ON c.id = u.call_id JOIN shares s ON s.call_id = u.call_id GROUP BY u.example_id),
    said AS (
        SELECT example_id, list({'by': decided_by, 'keep': keep, 'reason': reason} ORDER BY created_at, decided_by) AS verdicts,
               arg_max(decided_by, created_at) FILTER (decided_by LIKE 'human:%') AS reviewer
        FROM verdicts GROUP BY example_id)
    SELECT a.id, a.split, a.topic, a.generator, a.kind, a.completion, a.calls[-1] AS call_id, c.model AS teacher,
           c.prompt AS prompt_hash, c.messages AS rendered_prompt, c.text AS teacher_text,
           round(asked.prompt_tokens, 1) AS prompt_tokens, round(asked.completion_tokens, 1) AS completion_tokens,
           asked.cost_usd, said.verdicts, said.reviewer, a.parent, a.item_id, a.calls,
           asked.asked
    FROM accepted a LEFT JOIN calls c ON c.id = a.calls[-1] LEFT JOIN asked ON asked.example_id = a.id
    LEFT JOIN said ON said.example_id = a.id;
COMMENT ON VIEW lineage IS 'Where each training row came from: teacher, prompt and its hash, topic, tokens and cost (a call''s share), verdicts, reviewer; asked: every call behind it, the judge''s and a weak teacher''s too.';
