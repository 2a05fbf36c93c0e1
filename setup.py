# SPDX-License-Identifier: MIT
"""Builds gopool/_native/_pyapi.<EXT_SUFFIX> from the Go package ./pyapi, and the workers' C module.

This is the one place where setuptools meets the Go build; how its file comes about stands in
build_backend/gopool_build/bindings.py, all metadata in pyproject.toml. By hand:

    python setup.py build_ext --inplace
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
# A command line runs setup.py without the backend's path.
sys.path.insert(0, str(ROOT / "build_backend"))

from gopool_build import BuildError  # noqa: E402 (needs the line above)
from gopool_build.bindings import build_extension  # noqa: E402


class BuildGoExtension(build_ext):
    """build_ext whose extension without C sources is compiled by Go instead of by setuptools."""

    def build_extensions(self) -> None:
        """Build all, without this interpreter's own folders in what is linked: it needs none of its
        libraries, and the path would be of use on this machine alone.
        """
        self.compiler.linker_so = [
            word for word in self.compiler.linker_so if not word.startswith(("-L", "-Wl,-rpath"))
        ]
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Build `ext` where setuptools wants it: build folder, wheel or source tree."""
        if ext.sources:
            super().build_extension(ext)
            return
        try:
            build_extension(ROOT, Path(self.get_ext_fullpath(ext.name)).absolute())
        except BuildError as error:
            raise SystemExit(str(error)) from None


setup(
    ext_modules=[
        # No sources: setuptools shall neither compile nor pack any. First, since it looks whether
        # this machine can build at all.
        Extension("gopool._native._pyapi", sources=[]),
        Extension(
            "gopool._worker._lane",
            sources=["python/gopool/_worker/_lane.c"],
            depends=[f"python/gopool/_worker/{name}.h" for name in ("_message", "_system")],
            extra_compile_args=["-std=c11", "-O2", "-g0", "-Wall", "-Wextra", "-Werror=implicit"],
            extra_link_args=["-Wl,-s"],
        ),
    ],
    cmdclass={"build_ext": BuildGoExtension},
)
