package nft

import (
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Refuses reports whether a base chain drops or rejects, by its policy or by a rule that asks for nothing, what none of its other rules has accepted.
func (c *Conn) Refuses(chain ChainInfo) (bool, error) {
	if !chain.Base() || chain.Hook.Drop {
		return chain.Hook.Drop, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	refuses := false
	var filter message
	filter.str(unix.NFTA_RULE_TABLE, chain.Table)
	filter.str(unix.NFTA_RULE_CHAIN, chain.Name)
	err := c.dump(unix.NFT_MSG_GETRULE, chain.Family, filter.b, func(family byte, body []byte) {
		refuses = refuses || Family(family) == chain.Family && refusesAll(body, chain)
	})
	return refuses, fault.Wrap(fault.Internal, err, "list rules of chain %s", chain.Name)
}

// refusesAll reads one rule: whether it is the chain's, has no condition, and ends in a drop or a rejection.
func refusesAll(b []byte, chain ChainInfo) bool {
	var table, name string
	condition, refuses := false, false
	attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			table = text(value)
		case unix.NFTA_RULE_CHAIN:
			name = text(value)
		case unix.NFTA_RULE_EXPRESSIONS:
			attributes(value, func(_ uint16, expr []byte) {
				switch expression(expr) {
				case "counter", "log", "match comment": // they let every packet by
				case "drop", "reject", "target DROP", "target REJECT":
					refuses = true
				default:
					condition = true
				}
			})
		}
	})
	return table == chain.Table && name == chain.Name && refuses && !condition
}

// expression gives an expression's name, with that of what iptables-nft hides in it ("match comment", "target REJECT"); "drop" for the verdict.
func expression(b []byte) string {
	var name string
	var data []byte
	attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			name = text(value)
		case unix.NFTA_EXPR_DATA:
			data = value
		}
	})
	const innerName = 1 // NFTA_TARGET_NAME, NFTA_MATCH_NAME
	switch name {
	case "target", "match":
		attributes(data, func(kind uint16, value []byte) {
			if kind == innerName {
				name += " " + text(value)
			}
		})
	case "immediate":
		attributes(data, func(kind uint16, value []byte) {
			if kind != unix.NFTA_IMMEDIATE_DATA {
				return
			}
			attributes(value, func(kind uint16, value []byte) {
				if kind != unix.NFTA_DATA_VERDICT {
					return
				}
				attributes(value, func(kind uint16, value []byte) {
					if kind == unix.NFTA_VERDICT_CODE && len(value) == 4 && number(value) == drop {
						name = "drop"
					}
				})
			})
		})
	}
	return name
}
