//go:build !unix

package identity

// checkPrivate has nothing to look at: the system's permission bits do not say
// who may read a file; it inherits the access rules of the home directory.
func checkPrivate(string) error { return nil }
