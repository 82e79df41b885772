"""The peer: what a competent developer writes in a week from the documentation of the same parts.

Litestar, SQLModel with a session for each step, ARQ as it comes, the OpenAI SDK with its defaults,
httpx for webhooks. It does less than Runlane (no retries of its own, no fencing, no sweeper, no
lanes, no costs), but it does run the prompt and fire a signed webhook.
"""
