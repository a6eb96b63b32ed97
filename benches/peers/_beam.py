"""Beam search over a catalogue in plain PyTorch, as well as a user could write it: the encoder once a user, its keys and
values shared by the beams, a key-value cache, the trie as tables of transitions, everything vectorised over users and beams."""

import torch
import torch.nn.functional as F


class Trie:
    """`step[level][node, code]` is the child, or -1."""

    def __init__(self, items, ranges):
        self.ranges = ranges
        self.step = []
        nodes = {(): 0}
        for level, (first, size) in enumerate(ranges):
            children = {}
            table = torch.full((len(nodes), size), -1, dtype=torch.long)
            for item in items:
                prefix = tuple(item[:level + 1])
                child = children.setdefault(prefix, len(children))
                table[nodes[prefix[:-1]], item[level] - first] = child
            self.step.append(table)
            nodes = children


def split(x, heads):
    return x.view(*x.shape[:-1], heads, -1).transpose(-3, -2)


class BeamSearch:
    def __init__(self, model, trie):
        self.model, self.trie = model.eval(), trie
        self.config = model.config
        self.blocks = model.decoder.block
        self.bias = self.blocks[0].layer[0].SelfAttention

    @torch.inference_mode()
    def __call__(self, ids, mask, beams):
        config, heads, width = self.config, self.config.num_heads, self.config.d_model
        users, steps = ids.shape[0], len(self.trie.ranges)
        encoded = self.model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden_keys = torch.zeros(mask.shape, dtype=encoded.dtype).masked_fill(mask == 0, float("-inf"))[:, None, None]
        cross = [(split(block.layer[1].EncDecAttention.k(encoded), heads),
                  split(block.layer[1].EncDecAttention.v(encoded), heads)) for block in self.blocks]
        rows = 1
        own = [None] * len(self.blocks)
        tokens = torch.full((users, 1), config.decoder_start_token_id)
        node = torch.zeros((users, 1), dtype=torch.long)
        score = torch.zeros((users, 1))
        chosen = torch.empty((users, 1, 0), dtype=torch.long)
        for step in range(steps):
            x = self.model.shared(tokens[..., -1:].reshape(users * rows, 1))
            position = self.bias.compute_bias(step + 1, step + 1)[:, :, -1:]
            for i, block in enumerate(self.blocks):
                layer = block.layer[0]
                normed = layer.layer_norm(x)
                attention = layer.SelfAttention
                q, k, v = (split(part(normed), heads) for part in (attention.q, attention.k, attention.v))
                if own[i] is not None:
                    k, v = torch.cat([own[i][0], k], 2), torch.cat([own[i][1], v], 2)
                own[i] = (k, v)
                weights = F.softmax(q @ k.transpose(-1, -2) + position, -1)
                x = x + attention.o((weights @ v).transpose(1, 2).reshape(users * rows, 1, -1))
                layer = block.layer[1]
                q = split(layer.EncDecAttention.q(layer.layer_norm(x)).view(users, rows, -1), heads)
                weights = F.softmax(q @ cross[i][0].transpose(-1, -2) + hidden_keys, -1)
                context = (weights @ cross[i][1]).transpose(1, 2).reshape(users * rows, 1, -1)
                x = x + layer.EncDecAttention.o(context)
                x = block.layer[2](x)
            x = self.model.decoder.final_layer_norm(x) * width ** -0.5
            logs = F.log_softmax(self.model.lm_head(x), -1).view(users, rows, -1)
            first, size = self.trie.ranges[step]
            children = self.trie.step[step][node]
            total = (score[..., None] + logs[..., first:first + size]).masked_fill(children < 0, float("-inf"))
            count = min(beams, rows * size)
            score, best = total.view(users, -1).topk(count)
            parent, code = best // size, best % size
            node = children.view(users, -1).gather(1, best).clamp(min=0)
            chosen = torch.cat([chosen.gather(1, parent[..., None].expand(-1, -1, step)), (code + first)[..., None]], -1)
            tokens = chosen
            flat = (parent + torch.arange(users)[:, None] * rows).view(-1)
            own = [(k[flat], v[flat]) for k, v in own]
            rows = count
        return chosen, score
