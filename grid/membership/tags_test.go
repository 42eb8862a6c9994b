package membership

import (
	"maps"
	"strings"
	"testing"
)

func TestTagsRoundTrip(t *testing.T) {
	for _, want := range []tags{
		{version: "1.2.3", state: stateUp, record: 7},
		{state: stateLeaving, record: 1<<64 - 1},
	} {
		got, err := parseTags(want.encode())
		if err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	long := tags{version: strings.Repeat("é", 100), state: stateUp}.encode()
	if n := len(long[tagVersion]); n > maxTagVersion {
		t.Errorf("version tag of %d bytes", n)
	}
	if _, err := parseTags(long); err != nil {
		t.Error(err)
	}
}

func FuzzParseTags(f *testing.F) {
	f.Add("1.2.3", "up", "7")
	f.Add("", "left", "18446744073709551615")
	f.Add("", "stop", "0")
	f.Add("x", "up", "+7")
	f.Add("x", "up", "007")
	f.Add("x", "gone", "")
	f.Add("\xff", "up", "1")
	f.Fuzz(func(t *testing.T, version, state, record string) {
		in := map[string]string{tagVersion: version, tagState: state, tagRecord: record}
		got, err := parseTags(in)
		if err != nil {
			return
		}
		if !maps.Equal(got.encode(), in) {
			t.Fatalf("%q reads as %+v", in, got)
		}
	})
}
