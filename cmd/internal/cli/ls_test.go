package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	controlv1 "gotong/proto/control/v1"
)

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
