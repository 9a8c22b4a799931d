package checkup

import (
	"errors"
	"testing"
)

func TestFound(t *testing.T) {
	var r Room
	r.Found(Damage{Subject: "a"}, func() error { return nil })
	if !r.OK() || !r.Damages[0].Repaired {
		t.Errorf("%+v", r)
	}
	r.Found(Damage{Subject: "b"}, func() error { return errors.New("no way") })
	r.Found(Damage{Subject: "c"}, nil)
	if r.OK() || r.Damages[1].Repaired || r.Damages[1].Failed != "no way" || r.Damages[2].Failed != "" {
		t.Errorf("%+v", r)
	}
}
