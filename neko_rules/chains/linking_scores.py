"""Linking of scores: a chain that goes forward alone, for the outputs that decisions are made on."""

from __future__ import annotations

from neko_rules.chains.linking import Linking


class LinkingScores(Linking):
    """Writes such a chain; as ``Linking``."""

    def _write(self) -> None:
        self._go_forward()
        if self.kind.loss is None:
            self._ask_about_outputs()
            return
        pooled, skip, _ = self._pooled()
        self._put_scores(pooled, skip)
