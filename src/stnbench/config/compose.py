"""Composition of overrides to one configuration of plain values, with Hydra.

Hydra takes a tenth of a second for a composition, and a sweep has thousands of combinations of group choices.
Therefore Hydra composes the whole configuration once for each choice of the *wide* groups, whose files choose from
other groups and set keys of any section (scale, experiment), and the section of every other choice once; sections are
then replaced on a copy, and values set. A test compares the outcome with Hydra's for whole combinations.

One rule differs from Hydra, which applies the keys of a wide file to whichever section is chosen: a choice that differs
from that of an experiment, or of a scale that chooses from the group, gives the file unchanged, and an explicitly
chosen scale is applied over the experiment's keys.
"""

import contextlib
import copy
import dataclasses
import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from stnbench.config.locate import HYDRA_SUFFIXES, shown, yaml_files
from stnbench.config.values import read_yaml
from stnbench.core.errors import SpecError, UnknownNameError
from stnbench.core.identity import Json
from stnbench.spec.codec import is_required, to_plain
from stnbench.spec.registry import Registry, registry_of
from stnbench.spec.sweep import Override, Value, show_value

# Keys that a choice in ``conf/`` leaves out take the defaults of its specification.


Node = dict[str, Json]
"""A section of the configuration, or the whole configuration."""


def fill_defaults(node: Node) -> None:
    """Add the keys that sections leave out, with the defaults of their specifications."""
    for key, section in node.items():
        registry = registry_of(key)
        if registry is None or not isinstance(section, dict):
            continue
        name = section.get(registry.discriminator)
        if isinstance(name, str) and not (name in _UNFILLED or registry.is_absent(name)):
            for field, value in _defaults(registry, name, registry.part(name).spec).items():
                section.setdefault(field, copy.copy(value))


_UNFILLED = frozenset({"same", "none"})
"""Choices that stand for no specification."""


@functools.cache
def _defaults(registry: Registry, name: str, spec: Any) -> Node:  # noqa: ANN401 - a dataclass
    """Return the defaults of a specification, without those of its parts that are separate groups."""
    if any(map(is_required, dataclasses.fields(spec))):
        return {}
    plain = to_plain(spec(**{registry.discriminator: name}))
    return {key: value for key, value in plain.items() if key not in _GROUPS}


_GROUPS = frozenset({"distortion"})
"""Keys that a separate group fills."""


ROOT = "trial"
"""The primary configuration, ``conf/trial.yaml``."""

EXPERIMENT = "experiment"
"""The group whose files choose from other groups and set keys of any section."""

C = TypeVar("C")


class Composer:
    """A composer of configurations from one folder of groups."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._wholes: dict[tuple[Override, ...], tuple[Node, Mapping[str, str]]] = {}
        self._parts: dict[Override, Node] = {}
        self._own: dict[Override, tuple[Node, frozenset[str]]] = {}
        self._files: dict[tuple[str, Value, Value], str] = {}
        self._known: set[Override] = set()
        self._is_plain = False

    @functools.cached_property
    def defaults(self) -> dict[str, str]:
        """Return the groups that can be chosen (``network``, ``locnet@locnet1``) with their default choices."""
        path = self.folder / f"{ROOT}.yaml"
        entries = read_yaml(path).get("defaults")
        if not isinstance(entries, list):
            raise SpecError(f"{shown(path)} has no list of defaults", remedy="install stnbench again")
        return {str(key): str(value) for entry in entries if isinstance(entry, dict) for key, value in entry.items()}

    def choices(self, group: str) -> list[str]:
        """Return the choices of a group, sorted: its files, and parts from outside, which need no file."""
        return sorted({*self._file_names(group), *_parts_from_outside(group)})

    def _file_names(self, group: str) -> list[str]:
        return [path.stem for path in yaml_files(self.folder / group.partition("@")[0], HYDRA_SUFFIXES)]

    @functools.cached_property
    def wide_groups(self) -> tuple[str, ...]:
        """Return the groups whose files choose from others and set keys of any section, in ascending precedence."""
        return tuple(key for key in self.defaults if _is_global(self.folder / key.partition("@")[0]))

    def usual(self, choices: Iterable[Override] = ()) -> Mapping[str, str]:
        """Return the choice of every group if only wide groups are chosen.

        Args:
            choices: overrides; only those of wide groups count.

        Raises:
            UnknownNameError: if a choice does not exist.
            SpecError: if a choice cannot be composed.
        """
        said = {choice.key: choice for choice in choices}
        wide = tuple(said[key] for key in self.wide_groups if key in said)
        for choice in wide:
            self._check(choice)
        return self._whole(wide)[1]

    def is_default(self, override: Override, others: Iterable[Override] = ()) -> bool:
        """Check whether the override makes the same choice as the other overrides do without it."""
        return self.usual(other for other in others if other.key != override.key).get(override.key) == override.value

    def compose(self, overrides: Iterable[Override]) -> Node:
        """Compose the configuration; a later override of a key replaces an earlier one.

        Raises:
            UnknownNameError: if a key or choice does not exist.
            SpecError: if a key cannot be set.
        """
        last = {override.key: override for override in overrides}
        node = self._compose_groups({key: last[key] for key in self.defaults if key in last})
        fill_defaults(node)
        for override in last.values():
            if override.key not in self.defaults:
                self._set(node, override, last)
        return node

    def file_of(self, key: str, choices: Mapping[str, Override]) -> str:
        """Return the file that a top-level key of the configuration comes from, for messages."""
        group = next((name for name in self.defaults if name.split("@")[-1] == key), None)
        if group is None:
            return shown(self.folder / f"{ROOT}.yaml")
        choice = choices[group].value if group in choices else self.usual(choices.values())[group]
        asked = (group, choice, self._experiment(choices).value)
        if asked not in self._files:
            self._files[asked] = self._file_of_choice(*asked)
        return self._files[asked]

    def _file_of_choice(self, group: str, choice: Value, experiment: Value) -> str:
        path = self.folder / group.split("@", maxsplit=1)[0] / f"{choice}.yaml"
        file = shown(path) if path.is_file() else f"the part {choice}"
        if experiment == self.defaults.get(EXPERIMENT):
            return file
        return f"{file} as changed by {shown(self.folder / EXPERIMENT / f'{experiment}.yaml')}"

    def _experiment(self, said: Mapping[str, Override]) -> Override:
        return said.get(EXPERIMENT, Override(key=EXPERIMENT, value=self.defaults.get(EXPERIMENT)))

    def _compose_groups(self, said: Mapping[str, Override]) -> Node:
        """Return the configuration with the given choices of groups."""
        for choice in said.values():
            self._check(choice)
        wide = tuple(said[key] for key in self.wide_groups if key in said)
        whole, usual = self._whole(wide)
        node = _copied(whole)
        narrow = [choice for key, choice in said.items() if key not in self.wide_groups]
        placed = {self._section_of(choice): choice for choice in narrow if choice.value != usual[choice.key]}
        for section, choice in placed.items():
            node[section] = _copied(self._part(choice)[choice.key.partition("@")[0]])
        of_experiment = self.usual(choice for choice in wide if choice.key == EXPERIMENT)
        for key in self.wide_groups:
            if key != EXPERIMENT:  # a scale sets keys of the sections replaced above
                part, chosen = self._own_keys(key, usual[key])
                is_users = key in said and said[key].value != of_experiment[key]
                names = [name for name in part if (name not in chosen if name in placed else is_users)]
                _merge(node, {name: part[name] for name in names})
        return node

    def _whole(self, choices: tuple[Override, ...]) -> tuple[Node, Mapping[str, str]]:
        """Return Hydra's configuration for choices of wide groups, and its choice of every group."""
        if choices not in self._wholes:
            self._wholes[choices] = self._ask_hydra_for_all(choices)
        return self._wholes[choices]

    def _own_keys(self, group: str, name: Value) -> tuple[Node, frozenset[str]]:
        """Return the keys that a file of a wide group sets, and the sections that it chooses files for.

        Both include those of the files that it builds on.
        """
        choice = Override(key=group, value=name)
        if choice not in self._own:
            path = next(path for path in yaml_files(self.folder / group, HYDRA_SUFFIXES) if path.stem == name)
            own: Node = dict(read_yaml(path, for_hydra=True))
            entries = own.pop("defaults", None)
            entries = entries if isinstance(entries, list) else []
            whole: Node = {}
            chosen = {
                key.split("/")[-1].split("@")[-1] for entry in entries if isinstance(entry, dict) for key in entry
            }
            below = [entry for entry in entries if isinstance(entry, str)]
            for entry in below if "_self_" in below else [*below, "_self_"]:
                keys, also_chosen = (own, frozenset()) if entry == "_self_" else self._own_keys(group, entry)
                _merge(whole, keys)
                chosen |= also_chosen
            self._own[choice] = whole, frozenset(chosen)
        return self._own[choice]

    def _section_of(self, choice: Override) -> str:
        """Return the section that a choice of a group that is not wide fills."""
        group, _, package = choice.key.partition("@")
        return package or group

    def _part(self, choice: Override) -> Node:
        """Return the section of a choice alone."""
        if choice not in self._parts:
            group, registry = choice.key.partition("@")[0], registry_of(choice.key.partition("@")[0])
            if registry is None or choice.value in self._file_names(group):
                self._parts[choice] = self._ask_hydra(f"{group}/{choice.value}", ())
            else:
                self._parts[choice] = {group: {registry.discriminator: str(choice.value)}}
        return self._parts[choice]

    def _check(self, choice: Override) -> None:
        if choice not in self._known and choice.value not in self._file_names(choice.key):
            options = self.choices(choice.key)
            if choice.value not in options:
                where = f"{shown(self.folder)}/{choice.key.split('@')[0]}/"
                raise UnknownNameError(choice.key, show_value(choice.value), options, where=where)
        self._known.add(choice)  # looked up once: a sweep asks for the same choices thousands of times

    def _ask_hydra(self, name: str, choices: Sequence[Override]) -> Node:
        return cast("Node", OmegaConf.to_container(self._hydra_config(name, choices), resolve=True))

    def _ask_hydra_for_all(self, choices: Sequence[Override]) -> tuple[Node, Mapping[str, str]]:
        """Return the whole configuration, and the choice of every group."""
        config = self._hydra_config(ROOT, choices, return_hydra_config=True)
        chosen = cast("dict[str, str]", OmegaConf.to_container(config.hydra.runtime.choices))
        with open_dict(config):
            del config["hydra"]
        with _blaming(self.folder, ", ".join(map(str, choices)) or ROOT):
            return cast("Node", OmegaConf.to_container(config, resolve=True)), {
                key: chosen[key] for key in self.defaults
            }

    def _hydra_config(self, name: str, choices: Sequence[Override], *, return_hydra_config: bool = False) -> DictConfig:
        self._require_plain()
        with (
            _blaming(self.folder, ", ".join(map(str, choices)) or name),
            initialize_config_dir(config_dir=str(self.folder), version_base="1.3"),
        ):
            said = [str(choice) for choice in choices]
            return compose(config_name=name, overrides=said, return_hydra_config=return_hydra_config)

    def _require_plain(self) -> None:
        """Read every file with the loader of this package once, before Hydra does.

        Scalars that Hydra's loader would interpret differently, and repeated keys, are thus refused with their line.
        """
        if not self._is_plain:
            for path in sorted(self.folder.rglob("*.yaml")):
                if path.is_file() and not path.name.startswith("."):
                    read_yaml(path, for_hydra=True)
            self._is_plain = True

    def _set(self, node: Node, override: Override, choices: Mapping[str, Override]) -> None:
        *parents, leaf = override.key.split(".")
        for depth, name in enumerate(parents):
            below = node.get(name)
            if not isinstance(below, dict):
                raise self._unknown(override.key, node, parents[:depth], choices)
            node = below
        if leaf not in node:
            raise self._unknown(override.key, node, parents, choices)
        if isinstance(node[leaf], dict):
            raise self._group(override, [name for name in cast("Node", node[leaf]) if name != "kind"])
        node[leaf] = list(override.value) if isinstance(override.value, tuple) else override.value

    def _group(self, override: Override, names: list[str]) -> SpecError:
        """Return the error for a section that is set like a value: how to choose its file and set its keys."""
        group = next((name for name in self.defaults if name.split("@")[-1] == override.key), None)
        ways = [f"set {', '.join(f'{override.key}.{name}' for name in names)}"] if names else []
        if group is not None:
            choices = self.choices(group)
            is_choice = override.value in choices
            ways.insert(0, f"choose with {group}={override.value if is_choice else '|'.join(choices)}")
            ways = ways[:1] if is_choice else ways
        return SpecError(f"{override}: {override.key} is a group of keys", remedy=", or ".join(ways))

    def _unknown(self, key: str, node: Node, parents: list[str], choices: Mapping[str, Override]) -> UnknownNameError:
        known = [".".join([*parents, name]) for name in node if name != "kind"]
        if not parents:
            known = [name for name in known if not isinstance(node[name], dict)] + list(self.defaults)
        where = self.file_of(parents[0] if parents else "", choices)
        error = UnknownNameError("key", key, known, where=where)
        meant = _keys_like(key, self.compose([choice for choice in choices.values() if choice.key in self.defaults]))
        return UnknownNameError("key", key, meant, where=where) if meant and not parents else error


def _parts_from_outside(group: str) -> list[str]:
    """Return the names of the parts from outside that can be chosen in a group."""
    registry = registry_of(group.partition("@")[0])
    if registry is None:
        return []
    return [name for name in registry.names() if registry.source(name) is not None]


@contextlib.contextmanager
def _blaming(folder: Path, asked: str) -> Iterator[None]:
    """Convert errors of Hydra, OmegaConf and PyYAML in the block to SpecError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        problem = f"the configuration of {asked} cannot be composed ({error})"
        raise SpecError(problem, remedy=f"mend the file in {shown(folder)} that it names") from error


@functools.cache
def _is_global(group: Path) -> bool:
    """Check whether a file of a group sets keys at the root, by Hydra's directive in its first line."""
    return any(path.read_bytes().startswith(b"# @package _global_") for path in yaml_files(group, HYDRA_SUFFIXES))


def _copied(value: C) -> C:
    """Copy JSON values, several times faster than ``copy.deepcopy``, since a sweep needs thousands of copies."""
    if isinstance(value, dict):
        return cast("C", {key: _copied(item) for key, item in value.items()})
    return cast("C", [_copied(item) for item in value]) if isinstance(value, list) else value


def _keys_like(key: str, node: Node) -> list[str]:
    """Return the keys below sections that resemble a key, or whose last part does (``epochs``)."""
    below = {f"{section}.{name}": name for section, keys in node.items() if isinstance(keys, dict) for name in keys}
    below = {full: name for full, name in below.items() if name != "kind"}
    if "." in key:
        return difflib.get_close_matches(key, below, n=3, cutoff=0.7)
    nearest = difflib.get_close_matches(key, below.values(), n=1, cutoff=0.75)
    return [full for full, name in below.items() if nearest and name == nearest[0]]


def _merge(node: Node, part: Node) -> None:
    """Set the values of a part in a node; sections are merged key by key, lists are replaced."""
    for key, value in part.items():
        below = node.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            _merge(below, value)
        else:
            node[key] = _copied(value)
