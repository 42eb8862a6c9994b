package node

import "io/fs"

// ownedAndPrivate is true: the user's temporary directory is private here.
func ownedAndPrivate(fs.FileInfo) bool { return true }
