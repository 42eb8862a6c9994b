package node

import (
	"errors"
	"io/fs"
	"os"
	"strings"
)

// plainReason is the text of err without the calls and the names of files in
// it: the text around it names the file that matters, and the file of the call
// may be a temporary one.
func plainReason(err error) string {
	text := err.Error()
	var path *fs.PathError
	if errors.As(err, &path) {
		text = strings.ReplaceAll(text, path.Error(), path.Err.Error())
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		text = strings.ReplaceAll(text, link.Error(), link.Err.Error())
	}
	return text
}
