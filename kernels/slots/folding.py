"""A seed folded into its host's weight, where both are the same kind of linear map."""

import torch
from torch import Tensor, fx, nn

from .graft import Graft


def fold(host: nn.Module, graft: Graft, owners: dict[int, int]) -> bool:
    """Add a seed to the weights of its host; False, and nothing done, where the algebra or a tied weight forbids it.

    `owners` counts in how many places each parameter stands.
    """
    for name in ("weight", "bias"):
        if name not in host._parameters:  # parametrized or pruned: computed anew at every pass
            return False
        parameter = host._parameters[name]
        if parameter is not None and owners.get(id(parameter), 0) > 1:
            return False
    share = graft.level
    if graft.gate is not None:
        share *= float(torch.sigmoid(graft.gate.detach().double()))
    if type(host).forward is nn.Linear.forward and isinstance(host, nn.Linear):
        return _fold_linear(host, graft.seed, share)
    if type(host).forward is nn.Conv2d.forward and isinstance(host, nn.Conv2d):
        return _fold_conv(host, graft.seed, share)
    return False


def _fold_linear(host: nn.Linear, seed: nn.Module, share: float) -> bool:
    links = chain(seed)
    if links is None or not all(type(link) is nn.Linear for link in links):
        return False
    weight, bias = None, None
    for link in links:
        assert isinstance(link, nn.Linear)
        own = link.weight.detach().double()
        weight = own if weight is None else own @ weight
        bias = None if bias is None else own @ bias
        if link.bias is not None:
            bias = link.bias.detach().double() + (0 if bias is None else bias)
    if weight is None or weight.shape != host.weight.shape:
        return False
    _add(host, weight, bias, share)
    return True


def _fold_conv(host: nn.Conv2d, seed: nn.Module, share: float) -> bool:
    """Add a convolution of the same stride whose every tap falls on one of the host's."""
    links = chain(seed)
    if links is None or len(links) != 1 or type(links[0]) is not nn.Conv2d:
        return False
    conv = links[0]
    same = conv.stride == host.stride and conv.dilation == host.dilation and conv.padding_mode == host.padding_mode
    if not same or isinstance(conv.padding, str) or isinstance(host.padding, str) or host.padding_mode != "zeros":
        return False
    if (conv.in_channels, conv.out_channels) != (host.in_channels, host.out_channels):
        return False
    weight = _grouped(conv.weight.detach().double(), conv.groups, host)
    if weight is None:
        return False
    shifts = []
    for axis in range(2):
        steps, rest = divmod(int(host.padding[axis]) - int(conv.padding[axis]), host.dilation[axis])
        if rest or steps < 0 or steps + conv.kernel_size[axis] > host.kernel_size[axis]:
            return False
        shifts.append(steps)
    wide = torch.zeros(host.weight.shape, dtype=torch.float64, device=weight.device)
    rows, columns = weight.shape[2:]
    wide[:, :, shifts[0] : shifts[0] + rows, shifts[1] : shifts[1] + columns] = weight
    _add(host, wide, None if conv.bias is None else conv.bias.detach().double(), share)
    return True


def _grouped(weight: Tensor, groups: int, host: nn.Conv2d) -> Tensor | None:
    """Write the weight of a convolution in `groups` as one in the host's: zeros where it has no path."""
    if groups == host.groups:
        return weight
    if host.groups != 1:
        return None
    outs, ins = host.out_channels // groups, host.in_channels // groups
    wide = weight.new_zeros((host.out_channels, host.in_channels, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * outs, (group + 1) * outs)
        wide[rows, group * ins : (group + 1) * ins] = weight[rows]
    return wide


def _add(host: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor | None, share: float) -> None:
    with torch.no_grad():
        host.weight.copy_((host.weight.double() + share * weight).to(host.weight.dtype))
        if bias is None:
            return
        if host.bias is None:
            host.bias = nn.Parameter((share * bias).to(host.weight.dtype), host.weight.requires_grad)
        else:
            host.bias.copy_((host.bias.double() + share * bias).to(host.bias.dtype))


def chain(seed: nn.Module) -> list[nn.Module] | None:
    """Give the modules of a seed that does nothing but run them one after the other; None for any other seed."""
    if seed._forward_hooks or seed._forward_pre_hooks:
        return None
    if type(seed) in (nn.Linear, nn.Conv2d):
        return [seed]
    if type(seed) is nn.Sequential:
        found: list[nn.Module] = []
        for link in seed:
            links = [] if type(link) is nn.Identity else chain(link)
            if links is None:
                return None
            found += links
        return found
    if isinstance(seed, fx.GraphModule):
        return _graph_chain(seed)
    return None


def _graph_chain(seed: fx.GraphModule) -> list[nn.Module] | None:
    found: list[nn.Module] = []
    before: fx.Node | None = None
    for node in seed.graph.nodes:
        if node.op == "placeholder" and before is None:
            pass
        elif node.op == "call_module" and node.args == (before,) and not node.kwargs:
            links = chain(seed.get_submodule(str(node.target)))
            if links is None:
                return None
            found += links
        elif node.op == "output" and node.args == (before,):
            return found
        else:
            return None
        before = node
    return None
