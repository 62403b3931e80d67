"""The comparison of CTC back ends counts what is run, and has a line for what a device cannot run."""

from __future__ import annotations

import pytest
import tensorflow as tf

from benchmarks import ctc_backends

SIZE = (2, 20, 3, 5)


def hlo_of(function, *arguments):
    return tf.function(function, jit_compile=True).experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")


def test_kernels_of_a_loop_count_as_often_as_it_goes_round():
    x = tf.ones([16, 16])
    once = ctc_backends.count_kernels(hlo_of(lambda x: tf.sort(tf.matmul(x, x)), x))

    def loop(num):
        return lambda x: tf.while_loop(lambda i, x: i < num, lambda i, x: (i + 1, tf.sort(tf.matmul(x, x))), (0, x))[1]

    few, many = (ctc_backends.count_kernels(hlo_of(loop(num), x)) for num in (10, 110))
    a_round = (many - few) / 100
    assert once >= 2 and a_round == int(a_round) and once <= a_round <= once + 4  # and the counter's


def test_rounds_are_found_where_xla_does_not_say_them():
    x = tf.ones([7, 4])
    few, many = (
        ctc_backends.count_kernels(hlo_of(lambda x: tf.scan(lambda a, b: tf.sort(a + b), x), x))
        for x in (x, tf.ones([107, 4]))
    )
    assert many - few >= 100 and (many - few) % 100 == 0


def test_operations_of_a_loop_count_as_often_as_it_goes_round():
    def loop(x):
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, tf.sin(x)), (0, x))[1]

    function = tf.function(loop, autograph=False).get_concrete_function(tf.TensorSpec([2]))
    few, many = (ctc_backends.count_operations(function, num_steps=num) for num in (3, 13))
    assert many - few == 10 * 4  # sine, counter, TensorFlow's own counter, condition


def test_the_table_has_a_line_for_each_back_end_and_fewer_launches_for_blocks_of_long_rows():
    lines = list(ctc_backends.table(SIZE, num_repeats=1, names=["scan", "cudnn"]))
    assert "cannot run here" in lines[3] and "CTCLossV2" in lines[3]
    cells = lines[2].split("|")
    assert cells[1].strip() == "scan" and float(cells[2]) < 1e-5 and float(cells[5]) > 0.0
    batch = ctc_backends.ctc_error.make_batch(1, 300, 3, 5, 1.0)
    assert ctc_backends._launches("blocks", batch) < ctc_backends._launches("xla", batch) / 8
    assert ctc_backends._launches("xla", batch) < ctc_backends._launches("scan", batch) / 2


@pytest.mark.parametrize(("flags", "line"), [(["--device=gpu"], "sees no GPU"), (["--backends=spare"], "no 'spare'")])
def test_what_cannot_be_measured_is_refused_in_one_line(flags, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        ctc_backends.main(flags)
    assert line in capsys.readouterr().err
