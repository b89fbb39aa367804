"""Endings of files that are no images, or of kinds that are not read: nobody looks into them to find that out."""

_TEXTS = (
    ".txt .md .rst .log .csv .tsv .json .jsonl .ndjson .geojson .xml .html .htm .css .yaml .yml .toml .ini .cfg .conf"
)
_DOCUMENTS = ".pdf .ps .eps .ai .djvu .doc .docx .odt .rtf .xls .xlsx .ods .ppt .pptx .odp .epub .tex .eml"
_ARCHIVES = ".zip .tar .tgz .gz .bz2 .xz .zst .lz4 .7z .rar .iso .dmg .jar .deb .rpm"
_DATA = (
    ".db .sqlite .sqlite3 .parquet .arrow .feather .npy .npz .mat .h5 .hdf5 .pkl .pickle .bin .dat .tfrecord .mdb .lmdb"
)
_MODELS = ".onnx .pt .pth .weights .engine .plan .pb .tflite .keras .safetensors .ckpt"
_PROGRAMS = (
    ".py .pyc .ipynb .sh .bat .ps1 .js .c .h .cc .cpp .hpp .java .go .rs .rb .m .r .exe .dll .so .o .a .lnk .url"
)
_VIDEOS = ".mpg .mpeg .wmv .flv .m2ts .3gp .vob .ogv .insv .lrv .h264 .h265"
_SOUNDS = ".mp3 .wav .m4a .aac .flac .ogg .opus .wma .aif .aiff"
# What cameras and programs keep beside an image: labels, times, how it was developed; a `.thm` is a video's thumbnail.
_BESIDE = ".xmp .thm .aae .pp3 .dop .srt .gpx .kml .nmea .sha1 .sha256 .md5 .bak .tmp .part .lock"
# Many of these begin as a TIFF does, and hold what no decoder here reads.
_RAW = (
    ".3fr .arw .cr3 .crw .dcr .erf .fff .gpr .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .ptx .raf .raw .rw2 .rwl "
    ".sr2 .srf .srw .x3f"
)
_PICTURES = ".psd .psb .xcf .svg .svgz .ico .icns .exr .hdr .jxr .wdp .ppm .pgm .pbm .pnm .tga .dds .pcx .kra .blend"

OTHER_SUFFIXES = frozenset(
    suffix
    for group in (_TEXTS, _DOCUMENTS, _ARCHIVES, _DATA, _MODELS, _PROGRAMS, _VIDEOS, _SOUNDS, _BESIDE, _RAW, _PICTURES)
    for suffix in group.split()
)
