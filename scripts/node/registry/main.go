// Registry is the distribution project's, with only what a node's asks for: a folder, and accounts in an htpasswd file.
// Debian's is version 2, which refuses one of two builds that push one image at once: it empties a file before it writes it.
package main

import (
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
