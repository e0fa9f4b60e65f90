"""Optimizers go on exactly where they were."""

import copy
import io

import pytest
import torch as th

from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.files.model_file import read_model
from sb3_dreamer.common.files.optimizer_state import load_optimizer, optimizer_to_tensors

try:
    import resource
except ImportError:  # Windows
    resource = None
from tests.common.file_helpers import same, saved


class Odd(th.optim.Optimizer):
    """State that is not a tensor, and moments in float32 for bfloat16 parameters."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99)})

    def step(self):
        for param in self.param_groups[0]["params"]:
            state = self.state[param]
            state["count"] = state.get("count", 0) + 1
            state["seen"] = (*state.get("seen", ()), state["count"] / 3)
            state["moment"] = state.get("moment", th.zeros(param.shape)) + param.grad.float() / 3
            param.data -= (self.param_groups[0]["lr"] * state["moment"]).to(param.dtype)


OPTIMIZERS = [
    (
        lambda params: th.optim.Adam([{"params": params[:1], "lr": 1e-2}, {"params": params[1:]}], amsgrad=True),
        th.float32,
    ),
    (lambda params: th.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True), th.float64),
    (lambda params: th.optim.AdamW(params, lr=th.tensor(0.01)), th.float32),
    (Odd, th.bfloat16),
]


@pytest.mark.parametrize(("make", "dtype"), OPTIMIZERS)
def test_an_optimizer_goes_on_exactly(make, dtype):
    def steps(module, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            sum((param**2).sum() for param in module.parameters()).backward()
            optimizer.step()

    first = th.nn.Linear(3, 4).to(dtype)
    one = make(list(first.parameters()))
    steps(first, one, 3)
    for group in one.param_groups:
        group["lr"] = group["lr"] * 0.5
    tensors, extra = optimizer_to_tensors(one)
    assert all(isinstance(tensor, th.Tensor) for tensor in tensors.values())
    file = read_model(io.BytesIO(saved(data={"o": extra}, tensors={"optim": tensors, "policy": first.state_dict()})))
    second = th.nn.Linear(3, 4).to(dtype)
    second.load_state_dict(file.tensors["policy"])
    two = make(list(second.parameters()))
    load_optimizer(two, file.tensors["optim"], file.data["o"])
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert one.state[left].keys() == two.state[right].keys()
        for key, value in one.state[left].items():
            other = two.state[right][key]
            exact = isinstance(value, th.Tensor) and value.dtype == other.dtype and th.equal(value, other)
            assert exact or same(value, other), key
    steps(first, one, 3), steps(second, two, 3)
    assert all(th.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(th.equal(tensor, file.tensors["optim"][key]) for key, tensor in optimizer_to_tensors(two)[0].items()
                   if key.endswith(("exp_avg", "momentum_buffer", "moment")))  # fmt: skip


def test_an_optimizer_of_other_parameters_is_refused():
    tensors, extra = optimizer_to_tensors(th.optim.Adam(th.nn.Linear(3, 4).parameters()))
    other = th.optim.Adam(th.nn.Linear(3, 5).parameters())
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ModelFileError, match="other parameters"):
        load_optimizer(other, tensors, extra)
    with pytest.raises(ModelFileError, match="not of SGD"):
        load_optimizer(th.optim.SGD(th.nn.Linear(3, 4).parameters()), tensors, extra)
    fitting = th.optim.Adam(th.nn.Linear(3, 4).parameters())
    for broken in (None, [], {**extra, "state": 3}, {**extra, "param_groups": []}, {**extra, "state": {"7": {}}}):
        with pytest.raises(ModelFileError):
            load_optimizer(fitting, tensors, broken)
    for key in ("9.exp_avg", "x", "group.4.lr"):
        with pytest.raises(ModelFileError):
            load_optimizer(fitting, {key: th.zeros(1)}, extra)
    assert other.state_dict() == before
