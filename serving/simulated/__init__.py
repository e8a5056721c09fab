"""A scripted engine that speaks vLLM's wire: for tests, dry runs and load tests of the gateway itself.

It thinks nothing, but its times, its errors and its accuracy are asked for and can be changed while it runs:
`python -m serving.simulated --port 8101 --model base`, then POST /simulated {"ttft_ms": 400}.
"""
