package wire

import (
	"math"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/engine/container"
)

// Annotations by which a container asks for its share of the network: Docker's API has no field for it, and any client can send these.
const (
	RateAnnotation   = "berth.network.rate"   // "10mbit": most in and most out, of each interface
	WeightAnnotation = "berth.network.weight" // 1 to 1000, beside others on the same network; 100 where none is asked for
)

// networkShare reads the two annotations.
func networkShare(annotations map[string]string, n *container.Network) error {
	if text, ok := annotations[RateAnnotation]; ok {
		if n.Rate, ok = bitRate(text); !ok {
			return fault.New(fault.Invalid, "HostConfig.Annotations[%q]: %q is no rate; write for example 10mbit, 1.5gbit or 500kbit", RateAnnotation, text)
		}
	}
	if text, ok := annotations[WeightAnnotation]; ok {
		w, err := strconv.ParseUint(text, 10, 16)
		if err != nil || w < 1 || w > 1000 {
			return fault.New(fault.Invalid, "HostConfig.Annotations[%q]: %q is no number from 1 to 1000", WeightAnnotation, text)
		}
		n.Weight = uint16(w)
	}
	return nil
}

// bitUnits are those of tc(8): with "bit" they count bits, with "bps" bytes.
var bitUnits = map[string]float64{
	"": 1, "bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12, "bps": 8, "kbps": 8e3, "mbps": 8e6, "gbps": 8e9, "tbps": 8e12,
}

// bitRate reads a rate as tc and iperf write it and gives bits per second.
func bitRate(text string) (uint64, bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	scale, known := bitUnits[text[len(number):]]
	value, err := strconv.ParseFloat(number, 64)
	if !known || err != nil || strings.ContainsAny(number, "xe_") || !(value*scale >= 1) || value*scale > 1e15 {
		return 0, false
	}
	return uint64(math.Round(value * scale)), true
}
