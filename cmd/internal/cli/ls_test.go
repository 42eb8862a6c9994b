package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	controlv1 "gotong/proto/control/v1"
)

// TestTimesOfAllAges: what nanoseconds in 64 bits cannot say, nor JSON.
func TestTimesOfAllAges(t *testing.T) {
	for seconds, want := range map[int64]string{
		15e9: "2445-05-01T02:40:00.000000007Z", -12e9: "1589-09-26T02:40:00.000000007Z", 1e15: "9999-12-31T23:59:59.999999999Z", -1e15: "0000-01-01T00:00:00Z",
	} {
		text, err := json.Marshal(newEntryJSON(&controlv1.LsEntry{Mtime: seconds, MtimeNanos: 7}, ""))
		if err != nil || !bytes.Contains(text, []byte(want)) {
			t.Errorf("%d: %s, %v", seconds, text, err)
		}
	}
}

func TestPermissions(t *testing.T) {
	for mode, want := range map[uint32]string{
		0: "---------", 0o644: "rw-r--r--", 0o4755: "rwsr-xr-x", 0o2711: "rwx--s--x", 0o1777: "rwxrwxrwt", 0o7000: "--S--S--T",
	} {
		if got := permissions(mode); got != want {
			t.Errorf("%04o is %q, want %q", mode, got, want)
		}
	}
}

// TestNamesThatAreNotText: scripts get the very bytes of a name.
func TestNamesThatAreNotText(t *testing.T) {
	text, err := json.Marshal(newEntryJSON(&controlv1.LsEntry{Path: []byte("/a\xff"), LinkTarget: []byte("b\xfe")}, ""))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Path, Link string
		PathBase64 []byte `json:"path_base64"`
		LinkBase64 []byte `json:"link_base64"`
	}
	if err := json.Unmarshal(text, &got); err != nil || string(got.PathBase64) != "/a\xff" || string(got.LinkBase64) != "b\xfe" || got.Path != "/a\ufffd" {
		t.Errorf("%s, %v", text, err)
	}
	if text, err = json.Marshal(newEntryJSON(&controlv1.LsEntry{Path: []byte("/ä")}, "")); err != nil || bytes.Contains(text, []byte("base64")) {
		t.Errorf("%s, %v", text, err)
	}
}
