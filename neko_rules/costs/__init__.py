"""Costs: what a rule asks of a machine that learns with it: operations, memory and writes."""

from neko_rules.costs.costs import Costs as Costs
from neko_rules.costs.costs import costs as costs
from neko_rules.costs.counting import Count as Count
from neko_rules.costs.counting import CountingBackend as CountingBackend
