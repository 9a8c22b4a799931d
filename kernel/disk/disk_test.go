package disk

import "testing"

func TestOf(t *testing.T) {
	s, err := Of(t.TempDir())
	if err != nil || s.Total <= 0 || s.Free < 0 || s.Free > s.Total || s.Used() < 0 || s.Used() > 100 {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := Of("/no/such/path"); err == nil {
		t.Error("a path that is not there has room")
	}
	if got := (Space{Total: 200, Free: 50}).Used(); got != 75 {
		t.Errorf("%v", got)
	}
}
