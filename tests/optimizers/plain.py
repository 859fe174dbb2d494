"""The maths of elementwise optimizers in plain Python, one weight at a time, from the papers.

Each function takes the weight, its gradient, its state (a dict that starts empty), the step count
from 1, the rate, the decay and the settings, and returns the new weight.
"""

import math

import torch

from bocb_mm.optimizers.soap import eigenvectors


def sgd(p, g, s, t, lr, wd, momentum=0.9):
    g += wd * p
    s['b'] = momentum * s['b'] + g if t > 1 else g
    return p - lr * s['b']


def _moments(s, g, t, b1, b2):
    s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * g
    s['v'] = b2 * s.get('v', 0.0) + (1 - b2) * g * g
    return s['m'] / (1 - b1**t), s['v'] / (1 - b2**t)


def adam(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8):
    m, v = _moments(s, g + wd * p, t, *betas)
    return p - lr * m / (math.sqrt(v) + eps)


def adamw(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8):
    m, v = _moments(s, g, t, *betas)
    return p * (1 - lr * wd) - lr * m / (math.sqrt(v) + eps)


def adamax(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8):
    b1, b2 = betas
    g += wd * p
    s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * g
    s['u'] = max(b2 * s.get('u', 0.0), abs(g) + eps)
    return p - lr / (1 - b1**t) * s['m'] / s['u']


def nadam(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8, psi=0.004):
    b1, b2 = betas
    now, after = (b1 * (1 - 0.5 * 0.96 ** (i * psi)) for i in (t, t + 1))
    s['product'] = s.get('product', 1.0) * now
    _, v = _moments(s, g + wd * p, t, b1, b2)
    look = after * s['m'] / (1 - s['product'] * after)
    look += (1 - now) * (g + wd * p) / (1 - s['product'])
    return p - lr * look / (math.sqrt(v) + eps)


def radam(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8):
    b2 = betas[1]
    m, _ = _moments(s, g, t, *betas)
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * t * b2**t / (1 - b2**t)
    p *= 1 - lr * wd
    if rho <= 5:
        return p - lr * m
    r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return p - lr * r * m * math.sqrt(1 - b2**t) / (math.sqrt(s['v']) + eps)


def adagrad(p, g, s, t, lr, wd, eps=1e-10):
    g += wd * p
    s['v'] = s.get('v', 0.0) + g * g
    return p - lr * g / (math.sqrt(s['v']) + eps)


def adadelta(p, g, s, t, lr, wd, rho=0.9, eps=1e-6):
    g += wd * p
    s['v'] = rho * s.get('v', 0.0) + (1 - rho) * g * g
    d = math.sqrt(s.get('u', 0.0) + eps) / math.sqrt(s['v'] + eps) * g
    s['u'] = rho * s.get('u', 0.0) + (1 - rho) * d * d
    return p - lr * d


def rmsprop(p, g, s, t, lr, wd, alpha=0.99, eps=1e-8):
    g += wd * p
    s['v'] = alpha * s.get('v', 0.0) + (1 - alpha) * g * g
    return p - lr * g / (math.sqrt(s['v']) + eps)


def lion(p, g, s, t, lr, wd, betas=(0.9, 0.99)):
    m = s.get('m', 0.0)
    u = betas[0] * m + (1 - betas[0]) * g
    s['m'] = betas[1] * m + (1 - betas[1]) * g
    return p * (1 - lr * wd) - lr * ((u > 0) - (u < 0))


def adabelief(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8):
    b1, b2 = betas
    s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * g
    s['s'] = b2 * s.get('s', 0.0) + (1 - b2) * (g - s['m']) ** 2 + eps
    u = s['m'] / (1 - b1**t) / (math.sqrt(s['s'] / (1 - b2**t)) + eps)
    return p * (1 - lr * wd) - lr * u


def adan(p, g, s, t, lr, wd, betas=(0.98, 0.92, 0.99), eps=1e-8):
    b1, b2, b3 = betas
    d = g - s.get('g', g)
    s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * g
    s['d'] = b2 * s.get('d', 0.0) + (1 - b2) * d
    s['n'] = b3 * s.get('n', 0.0) + (1 - b3) * (g + b2 * d) ** 2
    s['g'] = g
    u = s['m'] / (1 - b1**t) + b2 * s['d'] / (1 - b2**t)
    return (p - lr * u / (math.sqrt(s['n'] / (1 - b3**t)) + eps)) / (1 + lr * wd)


def adabound(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8, final_lr=0.1, gamma=1e-3):
    b1, b2 = betas
    base = s.setdefault('base', lr)
    s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * g
    s['v'] = b2 * s.get('v', 0.0) + (1 - b2) * g * g
    final = final_lr * lr / base
    rate = lr * math.sqrt(1 - b2**t) / (1 - b1**t) / (math.sqrt(s['v']) + eps)
    rate = min(max(rate, final * (1 - 1 / (gamma * t + 1))), final * (1 + 1 / (gamma * t)))
    return p * (1 - lr * wd) - rate * s['m']


def sophia(p, g, s, t, lr, wd, betas=(0.965, 0.99), rho=0.04, eps=1e-12, batch=512):
    """The Hessian takes the training gradient every 10 steps: the test drives ours alike."""
    b1, b2 = betas
    if t % 10 == 1:
        s['h'] = b2 * s.get('h', 0.0) + (1 - b2) * batch * g * g
    s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * g
    return p * (1 - lr * wd) - lr * min(max(s['m'] / max(rho * s['h'], eps), -1.0), 1.0)


def _norm(values):
    return math.sqrt(sum(x * x for x in values))


def lamb(p, g, s, t, lr, wd, shape, betas=(0.9, 0.999), eps=1e-6):
    """Whole tensors as lists; parameters of one dimension are neither decayed nor adapted."""
    cells = s.setdefault('cells', [{} for _ in p])
    u = []
    for w, x, cell in zip(p, g, cells):
        m, v = _moments(cell, x, t, *betas)
        u.append(m / (math.sqrt(v) + eps) + (wd * w if len(shape) > 1 else 0.0))
    ratio = 1.0
    if len(shape) > 1 and _norm(p) > 0 and _norm(u) > 0:
        ratio = _norm(p) / _norm(u)
    return [w - lr * ratio * x for w, x in zip(p, u)]


def cadamw(p, g, s, t, lr, wd, shape, betas=(0.9, 0.999), eps=1e-8):
    """Whole tensors as lists."""
    cells = s.setdefault('cells', [{} for _ in p])
    u = []
    for x, cell in zip(g, cells):
        m, v = _moments(cell, x, t, *betas)
        u.append(m / (math.sqrt(v) + eps))
    kept = [float(a * b > 0) for a, b in zip(u, g)]
    scale = max(sum(kept) / len(kept), 1e-3)
    return [w * (1 - lr * wd) - lr * a * k / scale for w, a, k in zip(p, u, kept)]


def ademamix(p, g, s, t, lr, wd, betas=(0.9, 0.999, 0.9999), eps=1e-8, alpha=5.0):
    m, v = _moments(s, g, t, *betas[:2])
    s['n'] = betas[2] * s.get('n', 0.0) + (1 - betas[2]) * g
    return p * (1 - lr * wd) - lr * (m + alpha * s['n']) / (math.sqrt(v) + eps)


def mars(p, g, s, t, lr, wd, shape, betas=(0.95, 0.99), eps=1e-8, gamma=0.025):
    """Whole tensors as lists."""
    cells = s.setdefault('cells', [{} for _ in p])
    c = g
    if len(shape) > 1:
        strength = gamma * betas[0] / (1 - betas[0])
        c = [x + strength * (x - y) for x, y in zip(g, s.get('g', g))]
        c = [x / max(1.0, _norm(c)) for x in c]
    s['g'] = g
    return [adamw(w, x, cell, t, lr, wd, betas, eps) for w, x, cell in zip(p, c, cells)]


def schedule_free_sgd(p, g, s, t, lr, wd, momentum=0.9):
    return _schedule_free(p, g + wd * p, s, t, lr, momentum)


def _schedule_free(y, u, s, t, lr, b):
    z, x = s.get('z', y), s.get('x', y)
    s['z'] = z - lr * u
    s['x'] = (1 - 1 / t) * x + s['z'] / t
    return (1 - b) * s['z'] + b * s['x']


def schedule_free_adamw(p, g, s, t, lr, wd, betas=(0.9, 0.999), eps=1e-8):
    _, v = _moments(s, g, t, *betas)
    return _schedule_free(p, g / (math.sqrt(v) + eps) + wd * p, s, t, lr, betas[0])


def _orthogonal(rows, steps):
    """Newton-Schulz in plain torch on one matrix at a time."""
    x = torch.tensor(rows, dtype=torch.float64)
    flat = x.mT if x.shape[0] > x.shape[1] else x
    flat = flat / flat.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = flat @ flat.mT
        flat = 3.4445 * flat + (-4.7750 * gram + 2.0315 * gram @ gram) @ flat
    return flat.mT if x.shape[0] > x.shape[1] else flat


def muon(p, g, s, t, lr, wd, shape, nesterov=True, rows=None):
    """Whole tensors as lists: matrices, and AdamW at a 20th of the rate for the rest."""
    if len(shape) < 2:
        cells = s.setdefault('cells', [{} for _ in p])
        return [adamw(w, x, c, t, lr / 20, wd * 20) for w, x, c in zip(p, g, cells)]
    s['m'] = [0.95 * m + 0.05 * x for m, x in zip(s.get('m', [0.0] * len(p)), g)]
    u = [0.95 * m + 0.05 * x for m, x in zip(s['m'], g)] if nesterov else s['m']
    n, k = shape[0], len(p) // shape[0]
    o = _orthogonal([u[i * k : i * k + k] for i in range(n)], 5)
    if rows is not None:
        old, norm = s.get('v', torch.zeros(n, 1, dtype=o.dtype)), o.norm()
        s['v'] = rows * old + (1 - rows) * o.square().mean(1, keepdim=True)
        o = o / (s['v'].sqrt() + 1e-8)
        o = o * norm / o.norm().clamp(min=1e-8)
    scale = math.sqrt(max(1.0, n / k))
    return [w * (1 - lr * wd) - lr * scale * x for w, x in zip(p, o.flatten().tolist())]


def soap(p, g, s, t, lr, wd, shape, betas=(0.95, 0.95), eps=1e-8, every=10):
    """Whole tensors as lists; the moment in the weight's own space, one einsum a dimension."""
    b1, b2 = betas
    w, x = (torch.tensor(y, dtype=torch.float64).view(shape) for y in (p, g))
    dims = [i for i, n in enumerate(shape) if n > 1] if len(shape) > 1 else []
    factors = s.setdefault('f', {i: torch.zeros(shape[i], shape[i]).double() for i in dims})
    letters = 'abcd'[: len(shape)]

    def turned(y, back=False):
        for i in dims:
            pair = f'z{letters[i]}' if back else f'{letters[i]}z'
            y = torch.einsum(f'{letters},{pair}->{letters.replace(letters[i], "z")}', y, s['q'][i])
        return y

    if t > 1:
        s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * x
        s['v'] = b2 * s.get('v', 0.0) + (1 - b2) * turned(x) ** 2
        rate = lr * math.sqrt(1 - b2 ** (t - 1)) / (1 - b1 ** (t - 1))
        w = w - rate * turned(turned(s['m']) / (s['v'].sqrt() + eps), back=True)
        w = w - lr * wd * w
    for i in dims:
        rows = x.movedim(i, 0).reshape(shape[i], -1)
        factors[i] = b2 * factors[i] + (1 - b2) * rows @ rows.T
    if t == 1:
        s['q'] = {i: eigenvectors(f[None])[0] for i, f in factors.items()}
    elif (t - 1) % every == 0:
        for i, f in factors.items():
            values = torch.einsum('az,ab,bz->z', s['q'][i], f, s['q'][i])
            order = values.argsort(descending=True)
            s['v'] = s['v'].index_select(i, order)
            s['q'][i] = torch.linalg.qr(f @ s['q'][i][:, order]).Q
    return w.flatten().tolist()


def adafactor(p, g, s, t, lr, wd, shape, eps=1e-30, threshold=1.0):
    """Whole tensors as lists, kernels as (out, in*k*k)."""
    new = t**-0.8
    squared = [x * x + eps for x in g]
    if len(shape) > 1:
        n = shape[0]
        k = len(p) // n
        rows = [sum(squared[i * k : i * k + k]) / k for i in range(n)]
        columns = [sum(squared[j::k]) / n for j in range(k)]
        s['r'] = [(1 - new) * a + new * b for a, b in zip(s.get('r', rows), rows)]
        s['c'] = [(1 - new) * a + new * b for a, b in zip(s.get('c', columns), columns)]
        mean = sum(s['r']) / n
        v = [s['r'][i // k] * s['c'][i % k] / mean for i in range(len(p))]
    else:
        s['v'] = v = [(1 - new) * a + new * b for a, b in zip(s.get('v', squared), squared)]
    u = [x / math.sqrt(y) for x, y in zip(g, v)]
    clip = max(1.0, _norm(u) / math.sqrt(len(u)) / threshold)
    return [w * (1 - lr * wd) - lr * x / clip for w, x in zip(p, u)]


class Prodigy(torch.optim.Optimizer):
    """All weights in one list, the sums in plain Python; ``safeguard_warmup``."""

    def __init__(self, params, lr=1.0, weight_decay=0.0, eps=1e-8, d=1e-6, betas=(0.9, 0.999)):
        self.settings, self.cells, self.d, self.r = (eps, *betas), {}, d, 0.0
        super().__init__(params, {'lr': lr, 'weight_decay': weight_decay})

    @torch.no_grad()
    def step(self):
        eps, b1, b2 = self.settings
        top = max(group['lr'] for group in self.param_groups)
        d, inner, length = self.d, 0.0, 0.0
        for group in self.param_groups:
            lr, wd = group['lr'], group['weight_decay']
            for p in group['params']:
                weights, new = p.flatten().tolist(), []
                cells = self.cells.setdefault(p, [{'p0': w} for w in weights])
                for w, g, s in zip(weights, p.grad.flatten().tolist(), cells):
                    inner += g * (s['p0'] - w)
                    s['m'] = b1 * s.get('m', 0.0) + (1 - b1) * d * g
                    s['v'] = b2 * s.get('v', 0.0) + (1 - b2) * (d * g) ** 2
                    s['s'] = math.sqrt(b2) * s.get('s', 0.0) + d * d * g * lr / top
                    length += abs(s['s'])
                    step = lr * d * s['m'] / (math.sqrt(s['v']) + d * eps) if s['m'] else 0.0
                    new.append(w * (1 - lr * d * wd) - step)
                p.copy_(torch.tensor(new, dtype=p.dtype).view_as(p))
        self.r = math.sqrt(b2) * self.r + d * d * top * inner
        self.d = max(d, self.r / length)


class Plain(torch.optim.Optimizer):
    """Runs one of the functions above on parameters, weight by weight or tensor by tensor."""

    def __init__(self, params, function, lr=1e-3, weight_decay=0.0, whole=False, **settings):
        self.function, self.settings, self.whole = function, settings, whole
        super().__init__(params, {'lr': lr, 'weight_decay': weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in (p for p in group['params'] if p.grad is not None):
                state = self.state[p]
                state['t'] = t = state.get('t', 0) + 1
                rest = t, group['lr'], group['weight_decay']
                weights, grads = p.flatten().tolist(), p.grad.flatten().tolist()
                if self.whole:
                    new = self.function(weights, grads, state, *rest, p.shape, **self.settings)
                else:
                    cells = state.setdefault('cells', [{} for _ in weights])
                    rows = zip(weights, grads, cells)
                    new = [self.function(w, g, s, *rest, **self.settings) for w, g, s in rows]
                p.copy_(torch.tensor(new, dtype=p.dtype).view_as(p))
