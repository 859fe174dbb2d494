"""One row an optimizer: what it is compared with, and what it promises. Every check runs over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st

from . import plain

Factory = Callable[[Any], torch.optim.Optimizer]


@dataclass
class Reference:
    """An independent implementation.

    Attributes:
        build: Makes it from groups.
        ours: Arguments that ours needs to be the same algorithm.
        why: The reason for these arguments.
    """

    build: Factory
    ours: dict[str, Any] = field(default_factory=dict)
    why: str = ''


@dataclass
class Case:
    """What the checks need to know of one optimizer.

    Attributes:
        lr: Rate for the small models.
        references: By label.
        shrink: What a step with zero gradient multiplies a weight of two dimensions with, from rate and
            decay; None where it depends on the weight (adaptive rates with coupled decay).
        missing: Why there is no second independent reference.
        kernels_per_matrix: Kernels that a step with ``foreach`` has more for each parameter of two
            or more dimensions: PyTorch has no sum over the rows of many tensors.
        stacks: Kernels that a step has more for each shape of matrices, where these are stacked,
            which takes memory too; 0 where they are not.
        buffers: Lists of the size of the parameters that a step takes.
        idle: Steps before the first that moves a weight.
    """

    lr: float
    references: dict[str, Reference]
    shrink: Callable[[float, float], float] | None
    missing: str = ''
    kernels_per_matrix: int = 0
    stacks: int = 0
    buffers: int = 1
    idle: int = 0


def timm(
    name: str, ours: dict[str, Any] | None = None, why: str = '', **settings: Any
) -> Reference:
    def build(groups: Any) -> torch.optim.Optimizer:
        from timm.optim import get_optimizer_class

        return get_optimizer_class(name, bind_defaults=False)(groups, **settings)

    return Reference(build, ours or {}, why)


def other(
    name: str, ours: dict[str, Any] | None = None, why: str = '', **settings: Any
) -> Reference:
    def build(groups: Any) -> torch.optim.Optimizer:
        from pytorch_optimizer import load_optimizer

        return load_optimizer(name)(groups, **settings)

    return Reference(build, ours or {}, why)


def flattened(reference: Reference) -> Reference:
    """The reference sees kernels as matrices: a view (out, in*k*k) of each parameter."""

    def build(groups: Any) -> torch.optim.Optimizer:
        views = [{**group, 'params': [_matrix(p) for p in group['params']]} for group in groups]
        optimizer = reference.build(views)
        pairs = [(v, p) for a, b in zip(views, groups) for v, p in zip(a['params'], b['params'])]

        def take_gradients(*_: Any) -> None:
            for view, p in pairs:
                view.grad = None if p.grad is None else p.grad.view_as(view).clone()

        optimizer.register_step_pre_hook(take_gradients)
        return optimizer

    return Reference(build, reference.ours, reference.why)


def _matrix(p: torch.Tensor) -> torch.nn.Parameter:
    shape = (p.shape[0], -1) if p.dim() > 1 else p.shape
    return torch.nn.Parameter(p.detach().view(shape))


def halves(name: str, module: str, function: str, **settings: Any) -> Reference:
    """A library's Muon with groups that say their half, its iteration in double precision."""
    import importlib

    build_other = timm(name, **settings).build if module.startswith('timm') else other(name).build

    def build(groups: Any) -> torch.optim.Optimizer:
        matrices, rest = ({**group} for group in groups)
        if module.startswith('timm'):
            rest |= {'use_fallback': True, 'fallback_lr_scale': 0.05}
            rest['weight_decay'] *= 20
        else:
            rest['use_muon'] = False
            # it has one rate a group: a half as large for what is AdamW's
            rest |= {'betas': (0.9, 0.999), 'eps': 1e-8}
            matrices |= settings
        optimizer = build_other([{**matrices, 'use_muon': True}, rest])
        place = importlib.import_module(module)
        own = getattr(place, function)

        def exact(*args: Any, **kwargs: Any) -> Any:
            return own(*args, **kwargs, dtype=torch.float64)

        rates: list[float] = []

        def before(*_: Any) -> None:
            setattr(place, function, exact)
            if not module.startswith('timm'):
                rates[:] = [optimizer.param_groups[1]['lr']]
                optimizer.param_groups[1]['lr'] = rates[0] / 20

        def after(*_: Any) -> None:
            setattr(place, function, own)
            if rates:
                optimizer.param_groups[1]['lr'] = rates[0]

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
        return optimizer

    return Reference(build)


def in_double_with_our_null_space(reference: Reference) -> Reference:
    """pytorch_optimizer's SOAP without its single precision, and with our basis of a null space.

    LAPACK's depends on rounding; test_soap.py looks at ours.
    """
    import importlib
    from types import SimpleNamespace

    from bocb_mm.optimizers.soap import eigenvectors

    place = importlib.import_module('pytorch_optimizer.optimizer.soap')

    def eigh(m: torch.Tensor) -> Any:
        return None, eigenvectors(m[None])[0].flip(1)  # by rising eigenvalue, as torch's

    linalg = SimpleNamespace(eigh=eigh, qr=torch.linalg.qr)
    exact = SimpleNamespace(**vars(torch) | {'linalg': linalg, 'float32': torch.float64})

    def build(groups: Any) -> torch.optim.Optimizer:
        optimizer = reference.build(groups)
        optimizer.register_step_pre_hook(lambda *_: setattr(place, 'torch', exact))
        optimizer.register_step_post_hook(lambda *_: setattr(place, 'torch', torch))
        return optimizer

    return Reference(build, reference.ours, reference.why)


def at_one_rate(reference: Reference) -> Reference:
    """For a library with one rate: other groups' weights divided by their part of the first's.

    The library's own sums are in the default precision, which is double here.
    """

    def build(groups: Any) -> torch.optim.Optimizer:
        pairs, scaled = [], []
        for group in groups:
            part = group['lr'] / groups[0]['lr']
            own = [torch.nn.Parameter(p.detach() / part) for p in group['params']]
            pairs += [(q, p, part) for q, p in zip(own, group['params'])]
            scaled.append({**group, 'params': own})
        optimizer = reference.build(scaled)

        def before(*_: Any) -> None:
            torch.set_default_dtype(torch.float64)
            for q, p, part in pairs:
                q.grad = p.grad * part

        def after(*_: Any) -> None:
            torch.set_default_dtype(torch.float32)
            for q, p, part in pairs:
                p.data.copy_(q.detach() * part)

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)
        return optimizer

    return Reference(build, reference.ours, reference.why)


def loop(name: str, **settings: Any) -> Reference:
    return Reference(lambda groups: getattr(torch.optim, name)(groups, foreach=False, **settings))


def python(
    function: Callable[..., Any], ours: dict[str, Any] | None = None, **settings: Any
) -> Reference:
    return Reference(lambda groups: plain.Plain(groups, function, **settings), ours or {})


def decoupled(lr: float, wd: float) -> float:
    return 1 - lr * wd


CASES = {
    'SGD': Case(
        0.05,
        {'torch': loop('SGD', momentum=0.9), 'python': python(plain.sgd)},
        decoupled,
    ),
    'SGDP': Case(
        0.05,
        {
            'timm': timm('sgdp', lr=1, momentum=0.9),
            'pytorch_optimizer': other('sgdp', momentum=0.9),
        },
        # a zero gradient is orthogonal to the weights, so the decay has wd_ratio 0.1 of its strength
        lambda lr, wd: 1 - lr * wd / (1 - 0.9) * 0.1,
        kernels_per_matrix=8,
    ),
    'LION': Case(
        1e-3,
        {
            'timm': timm('lion'),
            'pytorch_optimizer': other('lion'),
            'python': python(plain.lion),
        },
        decoupled,
    ),
    'Adam': Case(1e-2, {'torch': loop('Adam'), 'python': python(plain.adam)}, None),
    'Adamax': Case(1e-2, {'torch': loop('Adamax'), 'python': python(plain.adamax)}, None),
    'NAdam': Case(1e-2, {'torch': loop('NAdam'), 'python': python(plain.nadam)}, None),
    'AdamW': Case(1e-2, {'torch': loop('AdamW'), 'python': python(plain.adamw)}, decoupled),
    'LAMB': Case(
        1e-2,
        # pytorch_optimizer's has no bias correction and decays outside the ratio: another algorithm
        {
            'timm': timm('lamb'),
            'python': python(plain.lamb, {'max_grad_norm': 0.0}, whole=True),
        },
        None,
    ),
    'RAdam': Case(
        1e-2,
        {'torch': loop('RAdam', decoupled_weight_decay=True), 'python': python(plain.radam)},
        decoupled,
    ),
    'AdamP': Case(
        1e-2,
        {
            'timm': timm('adamp'),
            'pytorch_optimizer': other(
                'adamp',
                {'eps': 1e-20},
                'it adds eps before the bias correction, the authors after: same for eps near 0',
                eps=1e-20,
            ),
        },
        lambda lr, wd: 1 - lr * wd * 0.1,
        kernels_per_matrix=8,
    ),
    'Adan': Case(
        1e-2,
        {
            'timm': timm('adan'),
            'pytorch_optimizer': other('adan'),
            'python': python(plain.adan),
        },
        lambda lr, wd: 1 / (1 + lr * wd),
    ),
    'AdaBound': Case(
        1e-3,
        {'pytorch_optimizer': other('adabound'), 'python': python(plain.adabound)},
        decoupled,
    ),
    'LARS': Case(
        1.0,
        {'timm': timm('lars', momentum=0.9), 'pytorch_optimizer': other('lars')},
        None,
    ),
    'AdaFactor': Case(
        1e-2,
        {
            # lr=1: without a rate of its own timm takes the relative step
            'timm': flattened(
                timm('adafactor', lr=1, scale_parameter=False, min_dim_size_to_factor=0)
            ),
            'pytorch_optimizer': flattened(
                other('adafactor', betas=(None, 0.999), scale_parameter=False, relative_step=False)
            ),
            'python': python(plain.adafactor, whole=True),
        },
        decoupled,
        kernels_per_matrix=3,
    ),
    'AdaBelief': Case(
        1e-2,
        {
            'timm': timm('adabelief', eps=1e-8, rectify=False),
            'pytorch_optimizer': other('adabelief', eps=1e-8),
            'python': python(plain.adabelief),
        },
        decoupled,
    ),
    'NovoGrad': Case(
        1e-2,
        {'timm': timm('novograd'), 'pytorch_optimizer': other('novograd')},
        decoupled,
    ),
    'Sophia': Case(
        1e-3,
        {'python': python(plain.sophia)},
        decoupled,
        missing='no library has Sophia-G: pytorch_optimizer has SophiaH (Hutchinson) only',
    ),
    'AdaGrad': Case(1e-2, {'torch': loop('Adagrad'), 'python': python(plain.adagrad)}, None),
    'AdaDelta': Case(1.0, {'torch': loop('Adadelta'), 'python': python(plain.adadelta)}, None),
    'RMSProp': Case(1e-2, {'torch': loop('RMSprop'), 'python': python(plain.rmsprop)}, None),
    'Muon': Case(
        0.02,
        {
            # timm's auxiliary half is NAdamW where Nesterov's momentum is asked for
            'timm': Reference(
                halves(
                    'muon',
                    'timm.optim.muon',
                    'zeropower_via_newtonschulz',
                    nesterov=False,
                    ns_coefficients='original',
                    adjust_lr_fn='original',
                    betas=(0.9, 0.999),
                    eps=1e-8,
                ).build,
                {'nesterov': False},
            ),
            'pytorch_optimizer': halves(
                'muon', 'pytorch_optimizer.optimizer.muon.base', 'zero_power_via_newton_schulz_5'
            ),
            'python': python(plain.muon, whole=True),
        },
        decoupled,
        stacks=20,
    ),
    'NorMuon': Case(
        0.02,
        {
            'pytorch_optimizer': halves(
                'normuon',
                'pytorch_optimizer.optimizer.muon.base',
                'zero_power_via_newton_schulz_5',
                eps=1e-8,
            ),
            'python': python(plain.muon, whole=True, rows=0.95),
        },
        decoupled,
        kernels_per_matrix=3,
        stacks=20,
    ),
    'CAdamW': Case(
        1e-2,
        {'timm': timm('cadamw', caution=True), 'python': python(plain.cadamw, whole=True)},
        decoupled,
        buffers=2,
    ),
    'AdEMAMix': Case(
        1e-2,
        {
            'pytorch_optimizer': other('ademamix', weight_decouple=True),
            'python': python(plain.ademamix),
        },
        decoupled,
        buffers=2,
    ),
    'MARS': Case(
        1e-2,
        {
            'timm': timm('mars', betas=(0.95, 0.99)),
            'python': python(plain.mars, whole=True),
        },
        decoupled,
    ),
    'ScheduleFreeSGD': Case(
        0.05,
        {
            'pytorch_optimizer': other('schedulefreesgd', momentum=0.9, weight_lr_power=0.0),
            'python': python(plain.schedule_free_sgd),
        },
        decoupled,
    ),
    'ScheduleFreeAdamW': Case(
        1e-2,
        {
            'pytorch_optimizer': other('schedulefreeadamw', weight_lr_power=0.0),
            'python': python(plain.schedule_free_adamw),
        },
        decoupled,
    ),
    'SOAP': Case(
        1e-2,
        {
            'pytorch_optimizer': in_double_with_our_null_space(other('soap')),
            'python': python(plain.soap, whole=True),
        },
        decoupled,
        stacks=40,
        buffers=2,
        idle=1,
    ),
    'Prodigy': Case(
        1.0,
        {
            'pytorch_optimizer': at_one_rate(
                other(
                    'prodigy',
                    {'eps': 1e-20},
                    'it multiplies eps with the new d, the paper with the old; and the multiple of a '
                    "group's rate is one of eps here",
                    eps=1e-20,
                    safeguard_warmup=True,
                )
            ),
            'python': Reference(plain.Prodigy),
        },
        lambda lr, wd: 1 - 1e-6 * lr * wd,
        buffers=2,
    ),
}


MODE_ARGUMENTS = {'foreach', 'fused', 'compile', 'differentiable', 'capturable'}


def between(low: float, high: float) -> Callable[..., Any]:
    return lambda case, default: st.floats(low, high)


def among(*values: Any) -> Callable[..., Any]:
    return lambda case, default: st.sampled_from(values)


flag = among(False, True)
# How to draw each setting that an optimizer has, from its row above and its default.
DRAWN = {
    'lr': lambda case, default: st.sampled_from([0.0, case.lr / 10, case.lr]),
    'betas': lambda case, default: st.tuples(*[st.floats(0.0, 0.999)] * len(default)),
    'weight_decay': among(0.0, 0.01, 0.1),
    'eps': among(1e-8, 1e-3),
    'momentum': among(0.0, 0.5, 0.9),
    'dampening': between(0.0, 0.9),
    'nesterov': flag,
    'maximize': flag,
    'amsgrad': flag,
    'decoupled_weight_decay': flag,
    'momentum_decay': between(0.0, 0.1),
    'lr_decay': between(0.0, 0.1),
    'initial_accumulator_value': between(0.0, 1.0),
    'rho': among(0.04, 0.9),
    'alpha': between(0.5, 0.999),  # also AdEMAMix's, which may be larger
    'centered': flag,
    'max_grad_norm': among(0.0, 0.1, 1.0, 100.0),
    'trust_clip': flag,
    'adapt': flag,
    'exclude_1d': flag,
    'trust_coefficient': between(1e-3, 1.0),
    'no_prox': flag,
    'final_lr': between(0.0, 0.1),
    'gamma': between(1e-3, 0.5),
    'base_lr': among(None, 1e-3),
    'beta1': among(None, 0.0, 0.9),
    'decay_rate': between(-1.0, -0.1),
    'eps1': among(1e-30, 1e-8),
    'eps2': among(1e-3, 0.1),
    'clip_threshold': between(0.1, 2.0),
    'scale_parameter': flag,
    'grad_averaging': flag,
    'hessian': among('gnb', 'none'),
    'hessian_updates': among(0),
    'delta': between(0.0, 2.0),
    'wd_ratio': between(0.0, 1.0),
    'beta2': between(0.0, 0.999),
    'ns_steps': among(1, 5),
    'adjust_lr_fn': among('original', 'match_rms_adamw'),
    'matrix': flag,
    'split': among(1, 2),
    'warmup': among(0, 2, 20),
    'warmup_steps': among(0, 2, 20),
    'train_mode': among(True),
    'optimize_1d': flag,
    'precondition_frequency': among(1, 2, 10),
    'max_precondition_dim': among(3, 10000),
    'd0': among(1e-6, 1e-3),
    'd_coef': between(0.5, 2.0),
    'use_bias_correction': flag,
    'safeguard_warmup': flag,
    'd': among(None),
    'd_numerator': among(None),
}
