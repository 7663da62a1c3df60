"""A thread's own number of PyTorch's threads."""

from __future__ import annotations

import threading

import pytest
import torch

from utils.torch_threads import get_threads, set_own_threads


def in_new_thread(function):
    """What a function returns in a thread of its own."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


@pytest.mark.parametrize("usual, own", [(2, 1), (3, 2), (1, 2)])
def test_a_thread_sets_its_own_number_and_no_other(usual, own):
    def own_and_that_of_a_later_thread():
        set_own_threads(own)
        later = in_new_thread(get_threads)
        torch.ones(1000, 1000).sum()
        return torch.get_num_threads(), later

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(usual)
        assert in_new_thread(own_and_that_of_a_later_thread) == (own, usual)
        assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == usual
    finally:
        torch.set_num_threads(before)
