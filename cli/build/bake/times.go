package bake

import (
	"errors"
	"math/big"
	"strconv"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// compareVersions is semvercmp(VERSION, CONSTRAINT): whether a version is one of those that are meant.
func compareVersions() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "version", Type: cty.String}, {Name: "constraint", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v, err := semver.NewVersion(args[0].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			c, err := semver.NewConstraint(args[1].AsString())
			if err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			return cty.BoolVal(c.Check(v)), nil
		},
	})
}

// formatTimestamp is formattimestamp(FORMAT, TIME): formatdate, which also takes seconds since 1970, and gives them for the format X.
func formatTimestamp() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "format", Type: cty.String}, {Name: "time", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			at, err := timeOf(args[1])
			if err != nil {
				return cty.NilVal, function.NewArgError(1, err)
			}
			if args[0].AsString() == "X" {
				return cty.StringVal(strconv.FormatInt(at.Unix(), 10)), nil
			}
			text := args[1]
			if text.Type() != cty.String {
				text = cty.StringVal(at.Format(time.RFC3339))
			}
			return stdlib.FormatDateFunc.Call([]cty.Value{args[0], text})
		},
	})
}

// parseTimestamp is unixtimestampparse(SECONDS): a time's parts, in UTC.
func parseTimestamp() function.Function {
	numbers := []struct {
		name string
		of   func(time.Time) int
	}{
		{"year", time.Time.Year}, {"year_day", time.Time.YearDay}, {"day", time.Time.Day}, {"month", func(t time.Time) int { return int(t.Month()) }},
		{"weekday", func(t time.Time) int { return int(t.Weekday()) }}, {"hour", time.Time.Hour}, {"minute", time.Time.Minute}, {"second", time.Time.Second},
		{"iso_year", func(t time.Time) int { y, _ := t.ISOWeek(); return y }}, {"iso_week", func(t time.Time) int { _, w := t.ISOWeek(); return w }},
	}
	kinds := map[string]cty.Type{"month_name": cty.String, "weekday_name": cty.String, "rfc3339": cty.String}
	for _, n := range numbers {
		kinds[n.name] = cty.Number
	}
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "unix_timestamp", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.Object(kinds)),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			at, err := timeOf(args[0])
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			parts := map[string]cty.Value{
				"month_name": cty.StringVal(at.Month().String()), "weekday_name": cty.StringVal(at.Weekday().String()), "rfc3339": cty.StringVal(at.Format(time.RFC3339)),
			}
			for _, n := range numbers {
				parts[n.name] = cty.NumberIntVal(int64(n.of(at)))
			}
			return cty.ObjectVal(parts), nil
		},
	})
}

// timeOf reads RFC 3339, or seconds since 1970.
func timeOf(v cty.Value) (time.Time, error) {
	switch v.Type() {
	case cty.String:
		at, err := time.Parse(time.RFC3339, v.AsString())
		if err != nil {
			return time.Time{}, errors.New("timestamp string must be RFC3339")
		}
		return at, nil
	case cty.Number:
		seconds, exact := v.AsBigFloat().Int64()
		if exact != big.Exact {
			return time.Time{}, errors.New("unix timestamp must be an integer")
		}
		return time.Unix(seconds, 0).UTC(), nil
	}
	return time.Time{}, errors.New("must be a string timestamp or a unix timestamp number")
}
