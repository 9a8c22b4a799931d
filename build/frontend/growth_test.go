package frontend

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
)

func TestGrowth(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	long := strings.Repeat("x", 60_000)
	config := func(env, onbuild []string) []byte {
		data, err := json.Marshal(map[string]any{"config": map[string]any{"Env": env, "OnBuild": onbuild}})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, c := range []struct {
		name, file string
		opts       map[string]string
		image      []byte
		fails      string
	}{
		{name: "doubled", file: "FROM x\nENV A=0123456789\n" + strings.Repeat("ENV A=$A$A\n", 40), fails: "grows to more than"},
		{name: "doubled by two", file: "FROM x\n" + strings.Repeat("ENV A=${B:-x}$B\nENV B=$A\n", 40), fails: "grows to more than"},
		{name: "doubled before the first stage", file: "ARG A=0123456789\n" + strings.Repeat("ARG A=$A$A\n", 40) + "FROM $A\n", fails: "grows to more than"},
		{name: "doubled across stages", file: many(40, "FROM s AS s\nENV A=$A$A\n#%d\n"), fails: "grows to more than"},
		{name: "doubled by names", file: "FROM x\n" + strings.Repeat("ENV $N=$A$A\n", 40), fails: "grows to more than"},
		{name: "doubled by quoted names", file: "FROM x\nENV A=b\n" + strings.Repeat("ENV A\"\"=$A$A\n", 40), fails: "grows to more than"},
		{name: "ports", file: "FROM x\n" + strings.Repeat("EXPOSE 1-65535/tcp 1-65535/udp\n", 1000), fails: "ranges of ports"},
		{name: "doubled by triggers", file: "FROM x AS a\n" + strings.Repeat("ONBUILD ENV A=$A$A\n", 40) + "FROM a\n", fails: "grows to more than"},
		{name: "doubled by a base's triggers", file: "FROM x\n", image: config(nil, strings.SplitAfter(strings.Repeat("ENV A=$A$A\n", 40), "\n")), fails: "grows to more than"},
		{name: "replaced", file: "FROM x\nENV A=" + long + "\nENV B=${A//x/" + strings.Repeat("y", 5000) + "}\n", fails: "grows to more than"},
		{name: "matched", file: "FROM x\nENV A=" + long + "\nENV B=${A##" + strings.Repeat("?*", 5000) + "}\n", fails: "patterns that are matched"},
		{name: "in a here-document", file: "FROM x\nENV A=" + long + "\nCOPY <<EOF /\n" + strings.Repeat("$A\n", 2000) + "EOF\n", fails: "grows to more than"},
		{name: "in each step", file: "FROM x\nENV A=" + long + "\nENV B=" + long + "\n" + strings.Repeat("RUN a\n", 1000), fails: "grows to more than"},
		{name: "in each step, from a base", file: "FROM x\n" + strings.Repeat("RUN a\n", 1000), image: config([]string{"A=" + long, "B=" + long}, nil), fails: "grows to more than"},
		{name: "in each step, by an argument", file: "FROM x\nARG A\n" + strings.Repeat("RUN a\n", 1000), opts: map[string]string{"build-arg:A": long + long}, fails: "grows to more than"},
		{name: "long in a base", file: "FROM x\nLABEL a=" + strings.Repeat("$A", 10_000) + "\n", image: config([]string{"A=" + long}, nil), fails: "grows to more than"},
		{name: "one stage", file: "FROM x\n" + strings.Repeat("RUN a\n", maxInRow+1), fails: "make a layer"},
		{name: "stages on one another", file: "FROM x AS s\n" + many(50, "FROM s AS s\n"+strings.Repeat("WORKDIR /a\n", 50)+"#%d\n"), fails: "make a layer"},
		{name: "stages by variables", file: "FROM x AS s\n" + many(50, "FROM $s AS s\n"+strings.Repeat("COPY a /a\n", 50)+"#%d\n"), fails: "make a layer"},
		{name: "variables before steps", file: "FROM x\n" + strings.Repeat("ENV A=b\n", 1500) + strings.Repeat("RUN a\n", 1500), fails: "too many ENV and ARG"},
		{name: "variables between steps", file: "FROM x\n" + strings.Repeat("ARG A=b C=d\nRUN a\n", 1500), fails: "too many ENV and ARG"},
		{name: "platforms", file: "FROM x\n" + strings.Repeat("ENV A=b\n", 600), opts: map[string]string{"platform": strings.Repeat("linux/amd64,", 99)}, fails: "for each platform"},
		{name: "triggers", file: strings.Repeat("FROM x\n", 5000), image: config(nil, strings.SplitAfter(strings.Repeat("ENV A=b\n", 20), "\n")), fails: "that bases trigger"},

		{name: "plain", file: "ARG V=1.2.3\nFROM x:${V%.*} AS a\nENV PATH=/a:$PATH V=${V//./_}\nONBUILD RUN a\nRUN a\nFROM a\nCOPY <<EOF /\n$V\nEOF\n"},
		{name: "long path", file: "FROM x\n" + strings.Repeat("ENV PATH=$PATH:/opt/something/bin\n", 500)},
		{name: "versions", file: "FROM x\nENV A=1 B=2\nENV C=$A.$B D=$A-$B E=${A}_$B\nENV F=$C$D$E\nENV G=$F/$C H=$F/$D\nENV I=$G:$H\nRUN a\n"},
		{name: "many stages", file: many(1000, "FROM x AS s%d\nENV PATH=/opt/bin:$PATH\nCOPY a b\nRUN a\n"), opts: map[string]string{"platform": "linux/amd64,linux/arm64"}},
		{name: "many steps", file: "FROM x\nENV PATH=/opt/bin:$PATH\n" + strings.Repeat("RUN a\n", 1000), image: config([]string{"PATH=/bin", "LANG=C"}, []string{"RUN a"})},
		{name: "quoted", file: "FROM x\nCOPY <<EOF /\n" + strings.Repeat("${A%.*} and ${B}\n", 20_000) + "EOF\n"},
		{name: "ranges", file: "FROM x\nARG PORT=80\nEXPOSE 8000-8100 $PORT 443/tcp\n"},
		{name: "a script", file: "FROM x\nCOPY <<EOF /\n" + strings.Repeat("echo \"it\" ${A#$B}${C//x/y} ${D:-$E}\n", 5000) + strings.Repeat("${C//'x'/\"y\"} ${D:-$E}\n", 100) + "EOF\n"},
		{name: "no Dockerfile", file: "node_modules\n*.o\n!a${b\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			if err := CheckDockerfile([]byte(c.file)); err != nil {
				t.Fatal(err)
			}
			call := &Call{Options: c.opts}
			err := call.wrote([]byte(c.file))
			if err == nil && c.image != nil {
				err = call.met(c.image)
			}
			if c.fails == "" && err != nil || c.fails != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("%v", err)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
