"""The metric that a run is judged by: what the config says, and what its results hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# The number each of the paper's tasks is judged by (Tables 1-3), and what stands in for others.
_BY_TASK = {
    'classification': 'accuracy/top1',
    'detection': 'coco/bbox_mAP',
    'pose': 'coco/AP',
    'segmentation': 'mIoU',
    'action recognition': 'acc/top1',
    'rotated detection': 'dota/mAP',
    'text recognition': 'recog/word_acc_ignore_case_symbol',
    'text detection': 'icdar/hmean',
}
# Evaluator's class -> its headline number. CocoMetric is in several toolboxes: by task.
_BY_EVALUATOR = {
    'Accuracy': 'accuracy/top1',
    'SingleLabelMetric': 'single-label/f1-score',
    'MultiLabelMetric': 'multi-label/f1-score',
    'AveragePrecision': 'multi-label/mAP',
    'VOCMultiLabelMetric': 'multi-label/f1-score',
    'VOCAveragePrecision': 'multi-label/mAP',
    'RetrievalRecall': 'retrieval/Recall@1',
    'VOCMetric': 'pascal_voc/mAP',
    'LVISMetric': 'lvis/bbox_AP',
    'OpenImagesMetric': 'openimages/mAP',
    'CocoPanopticMetric': 'coco_panoptic/PQ',
    'CocoWholeBodyMetric': 'coco-wholebody/AP',
    'PCKAccuracy': 'PCK',
    'MpiiPCKAccuracy': 'PCK',
    'JhmdbPCKAccuracy': 'PCK',
    'AUC': 'AUC',
    'EPE': 'EPE',
    'NME': 'NME',
    'MPJPE': 'MPJPE',
    'IoUMetric': 'mIoU',
    'AccMetric': 'acc/top1',
    'DOTAMetric': 'dota/mAP',
    'RotatedCocoMetric': 'r_coco/bbox_mAP',
    'WordMetric': 'recog/word_acc_ignore_case_symbol',
    'HmeanIOUMetric': 'icdar/hmean',
}
# Evaluator's class -> the argument that chooses what it logs -> value -> the number's name.
_BY_ARGUMENT = {
    'CocoMetric': ('metric', {'segm': 'coco/segm_mAP', 'proposal': 'coco/AR@100'}),
    'LVISMetric': ('metric', {'segm': 'lvis/segm_AP'}),
    'PCKAccuracy': ('norm_item', {'head': 'PCKh', 'torso': 'tPCK'}),
    'JhmdbPCKAccuracy': ('norm_item', {'torso': 'tPCK'}),
    'IoUMetric': ('iou_metrics', {'mDice': 'mDice', 'mFscore': 'mFscore'}),
    'MPJPE': ('mode', {'p-mpjpe': 'P-MPJPE', 'n-mpjpe': 'N-MPJPE'}),
}


@dataclass(frozen=True)
class Headline:
    """A metric that runs are judged by.

    Attributes:
        name: As mmengine logs it; ``''`` where only the results can tell.
        evaluator: Class of the evaluator it comes from, ``''`` where the config does not say.
        rule: ``'greater'`` or ``'less'`` where the config says which is better.
        given: The user named it, so no other may stand in for it.
    """

    name: str
    evaluator: str = ''
    rule: str = ''
    given: bool = False


def evaluators(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Classes of a config's validation metrics, without scopes."""
    for part in _metrics(cfg.get('val_evaluator')):
        yield _class(part)


def _metrics(part: Any) -> Iterator[Mapping[str, Any]]:
    """The metrics in an evaluator's config, out of Evaluator, MultiDatasetsEvaluator and lists."""
    if isinstance(part, list | tuple):
        for one in part:
            yield from _metrics(one)
    elif isinstance(part, Mapping):
        if 'metrics' in part:
            yield from _metrics(part['metrics'])
        elif 'type' in part:
            yield part


def _class(part: Mapping[str, Any]) -> str:
    kind = part['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def headline_of(cfg: Mapping[str, Any], task: str) -> Headline:
    """The metric that a config's runs are judged by.

    ``headline_metric`` of the config (``--metric``) comes first, then the name in the checkpoint
    hook's ``save_best``, then the evaluator's, then the task's.

    Example:
        >>> headline_of({'val_evaluator': {'type': 'mmpose.NME'}}, 'pose').name
        'NME'
    """
    best, rule = _save_best(cfg)
    if cfg.get('headline_metric'):
        name = str(cfg['headline_metric'])
        return Headline(name, _giver(cfg, name), rule if best == name else '', given=True)
    if best:
        return Headline(best, _giver(cfg, best), rule)
    for part in _metrics(cfg.get('val_evaluator')):
        name = _of_evaluator(part, task)
        if name:
            return Headline(name, _class(part))
    first = next(evaluators(cfg), '')
    return Headline('' if first else _BY_TASK.get(task, ''), first)


def _of_evaluator(part: Mapping[str, Any], task: str) -> str:
    """Name of an evaluator's headline number, ``''`` for one that is not known."""
    kind = _class(part)
    name = _BY_EVALUATOR.get(kind, '')
    if kind == 'CocoMetric':
        name = _BY_TASK['pose' if task == 'pose' else 'detection']
    argument, variants = _BY_ARGUMENT.get(kind, ('', {}))
    chosen = part.get(argument)
    chosen = chosen[0] if isinstance(chosen, list | tuple) and chosen else chosen
    name = variants.get(chosen, name) if isinstance(chosen, str) else name
    prefix = part.get('prefix')
    return f'{prefix}/{name.rpartition("/")[2]}' if prefix and name else name


def _giver(cfg: Mapping[str, Any], metric: str) -> str:
    """Class of the evaluator that logs a metric, as far as names tell; else of the first one."""
    for part in _metrics(cfg.get('val_evaluator')):
        known = _of_evaluator(part, '')
        if known and known.partition('/')[0] == metric.partition('/')[0]:
            return _class(part)
    return next(evaluators(cfg), '')


def _save_best(cfg: Mapping[str, Any]) -> tuple[str, str]:
    """The metric a checkpoint hook's ``save_best`` names first, and its rule."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    for hook in hooks:
        if isinstance(hook, Mapping) and hook.get('save_best'):
            best, rule = (_first(hook.get(key)) for key in ('save_best', 'rule'))
            if best != 'auto':
                return best, rule
    return '', ''


def _first(value: Any) -> str:
    value = value[0] if isinstance(value, list | tuple) and value else value
    return value if isinstance(value, str) else ''


def among(headline: Headline, results: Mapping[str, float]) -> str | None:
    """Name under which the headline metric stands among an evaluation's results.

    Where the user has not named one, a metric of the same name under another prefix stands in, and
    else the first result, as mmengine's ``save_best='auto'`` takes.

    Returns:
        The name, or ``None`` if the results are empty or lack what the user named.

    Example:
        >>> among(Headline('accuracy/top1'), {'val/top5': 90.0, 'val/top1': 70.0})
        'val/top1'
        >>> among(Headline('coco/AP', given=True), {'PCK': 0.9}) is None
        True
    """
    if headline.name in results or headline.given or not results:
        return headline.name if headline.name in results else None
    last = headline.name.rpartition('/')[2]
    return next((name for name in results if name.rpartition('/')[2] == last), next(iter(results)))
