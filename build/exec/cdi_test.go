package exec

import (
	"strings"
	"testing"
)

func TestMeantDevices(t *testing.T) {
	free := map[string]string{annotationFree: "true"}
	all := []Device{
		{Name: "a.com/card=0", Annotations: free}, {Name: "a.com/card=1"}, {Name: "a.com/cardreader=0", Annotations: map[string]string{annotationClass: "reader"}},
		{Name: "b.com/card=0", Annotations: map[string]string{annotationClass: "reader", annotationFree: "no"}},
	}
	for word, want := range map[string]string{
		"a.com/card=0": "a.com/card=0", "a.com/card=1": "a.com/card=1", "a.com/card=2": "", "a.com/card": "a.com/card=0", "a.com/card=*": "a.com/card=0 a.com/card=1",
		"reader": "a.com/cardreader=0 b.com/card=0", "other": "", "c.com/card": "", "": "", "=": "", "a.com/card=": "a.com/card=0",
	} {
		var names []string
		for _, d := range meant(all, word) {
			names = append(names, d.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%q means %q, want %q", word, got, want)
		}
	}
	if !all[0].Free() || all[1].Free() || all[3].Free() {
		t.Error("free devices are not those that say so")
	}
}
