from __future__ import annotations

from bench.gateways.profile import place, stacks, table

SAID = """
\tffffffff8162f765 tcp_ack ([kernel.kallsyms])
\tffffffff816b8faa ksys_write ([kernel.kallsyms])
\t           a3902 CPyDef_client___Client___whole (/cache/x__mypyc.so)

\t          158cc7 PyObject_VectorcallMethod (/usr/lib/libpython3.11.so.1.0)
\t           e7cc9 CPyDef_ask____parsed (/cache/x__mypyc.so)
\t           e7cc9 CPyDef_reception___Reception___serve (/cache/x__mypyc.so)

\t           a3902 __pyx_f_6uvloop_4loop_x (/site-packages/uvloop/loop.so)

\t          158cc7 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)
"""


def test_a_look_belongs_to_the_innermost_of_ours():
    """Or to the kernel, whoever called it."""
    assert [place(stack) for stack in stacks(SAID)] == [
        "kernel: writes",
        "gateway/door/ask.py",
        "uvloop",
        "the interpreter: what waits, and timers",
    ]


def test_shares_become_microseconds():
    """The largest first; what is little is put together."""
    said = table({"a": 600, "b": 399, "c": 1}, 10.0)
    assert said.splitlines()[2:] == ["| a | 60.0% | 6.0 |", "| b | 39.9% | 4.0 |", "| everything else | 0.1% | 0.0 |"]
