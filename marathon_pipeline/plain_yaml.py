"""YAML as jobs and gates are written in."""

import yaml


class Loader(yaml.SafeLoader):
    """YAML without aliases: nine lines of them make a gigabyte."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=self.get_mark())
        return super().compose_node(parent, index)
