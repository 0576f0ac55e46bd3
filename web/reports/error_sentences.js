// The errors that a newcomer meets, in the page's language: what is wrong and what to do, each by itself. The server
// writes English, {n} stands for what it puts in; an error that is not here is shown as it came.
import { translator } from "./sentences.js";
import { pageLanguage } from "../shared/texts.js";

/** Per sentence: English, Chinese, Japanese, Korean, French. */
const SENTENCES = [
  // What is wrong
  [
    "there is no CLIP to encode the prompts.",
    "没有 CLIP 来编码提示词。",
    "プロンプトを符号化する CLIP がありません。",
    "프롬프트를 인코딩할 CLIP이 없습니다.",
    "il n’y a pas de CLIP pour encoder les prompts.",
  ],
  [
    "cfg {0} needs a negative prompt.",
    "cfg {0} 需要负面提示词。",
    "cfg {0} にはネガティブプロンプトが必要です。",
    "cfg {0}에는 부정 프롬프트가 필요합니다.",
    "cfg {0} demande un prompt négatif.",
  ],
  [
    "no schedule is plugged in.",
    "没有连接调度（SIGMAS）。",
    "スケジュール（SIGMAS）が接続されていません。",
    "스케줄(SIGMAS)이 연결되지 않았습니다.",
    "aucun schedule n’est branché.",
  ],
  ["{0} is not in {1}.", "{1} 中没有 {0}。", "{1} に {0} がありません。", "{1}에 {0}이(가) 없습니다.", "{0} n’est pas dans {1}."],
  [
    "there is no {0} metric {1}.",
    "没有 {0} 指标 {1}。",
    "{0} 指標 {1} がありません。",
    "{0} 지표 {1}이(가) 없습니다.",
    "il n’y a pas de métrique {0} {1}.",
  ],
  [
    "this metric needs open_clip.",
    "该指标需要 open_clip。",
    "この指標には open_clip が必要です。",
    "이 지표에는 open_clip이 필요합니다.",
    "cette métrique demande open_clip.",
  ],
  ["the latent is not empty.", "潜变量不为空。", "潜在変数が空ではありません。", "잠재 변수가 비어 있지 않습니다.", "le latent n’est pas vide."],
  [
    "the latent has {0} channels, the model takes {1}.",
    "潜变量有 {0} 个通道，模型需要 {1} 个。",
    "潜在変数は {0} チャンネルですが、モデルは {1} チャンネルです。",
    "잠재 변수는 {0}채널이지만 모델은 {1}채널을 받습니다.",
    "le latent a {0} canaux, le modèle en prend {1}.",
  ],
  [
    "nothing to quantise: outside the repeated blocks.",
    "没有可量化的层：都在重复块之外。",
    "量子化できる層がありません：繰り返しブロックの外です。",
    "양자화할 층이 없습니다: 반복 블록 밖입니다.",
    "rien à quantifier : hors des blocs répétés.",
  ],
  [
    "nothing to quantise: not among the included.",
    "没有可量化的层：include 没有选中任何层。",
    "量子化できる層がありません：include に含まれていません。",
    "양자화할 층이 없습니다: include에 포함되지 않았습니다.",
    "rien à quantifier : include ne retient aucune couche.",
  ],
  [
    "no file {0} in ComfyUI's input folder.",
    "ComfyUI 的 input 文件夹中没有文件 {0}。",
    "ComfyUI の input フォルダーに {0} がありません。",
    "ComfyUI의 input 폴더에 {0} 파일이 없습니다.",
    "pas de fichier {0} dans le dossier input de ComfyUI.",
  ],
  [
    "{0} prompts, at least {1} are needed.",
    "只有 {0} 条提示词，至少需要 {1} 条。",
    "プロンプトが {0} 件です。少なくとも {1} 件必要です。",
    "프롬프트가 {0}개입니다. 적어도 {1}개가 필요합니다.",
    "{0} prompts : il en faut au moins {1}.",
  ],
  [
    "sampler {0} keeps a copy of the latent, which c_x cannot reach.",
    "采样器 {0} 保留了潜变量的副本，c_x 无法作用于它。",
    "サンプラー {0} は潜在変数の写しを持つため、c_x が届きません。",
    "샘플러 {0}은(는) c_x가 닿지 않는 잠재 변수의 복사본을 가집니다.",
    "l’échantillonneur {0} garde une copie du latent que c_x n’atteint pas.",
  ],
  [
    "the preset does not fit: {0}",
    "预设不适合：{0}",
    "プリセットが合いません：{0}",
    "프리셋이 맞지 않습니다: {0}",
    "le préréglage ne convient pas : {0}",
  ],
  // What to do
  [
    "plug one in, or prepared conditionings",
    "请连接 CLIP，或连接准备好的条件",
    "CLIP か、用意した条件付けを接続してください",
    "CLIP 또는 준비된 조건을 연결하세요",
    "branchez-en un, ou des conditionnements préparés",
  ],
  [
    "plug in a CLIP or a GUIDER, or set cfg to 1",
    "请连接 CLIP 或 GUIDER，或把 cfg 设为 1",
    "CLIP か GUIDER を接続するか、cfg を 1 にしてください",
    "CLIP이나 GUIDER를 연결하거나 cfg를 1로 하세요",
    "branchez un CLIP ou un GUIDER, ou mettez cfg à 1",
  ],
  [
    "plug in SIGMAS, BasicScheduler's for example, or a preset",
    "请连接 SIGMAS（例如 BasicScheduler 的），或一个预设",
    "SIGMAS（例えば BasicScheduler のもの）かプリセットを接続してください",
    "SIGMAS(예: BasicScheduler) 또는 프리셋을 연결하세요",
    "branchez des SIGMAS, ceux de BasicScheduler par exemple, ou un préréglage",
  ],
  [
    "put the file there and press R",
    "请把文件放到那里并按 R",
    "そこにファイルを置いて R を押してください",
    "파일을 그곳에 넣고 R을 누르세요",
    "mettez-y le fichier et appuyez sur R",
  ],
  [
    "put its files into {0}",
    "请把它的文件放入 {0}",
    "そのファイルを {0} に置いてください",
    "파일을 {0}에 넣으세요",
    "mettez ses fichiers dans {0}",
  ],
  [
    "plug in an empty latent: calibration makes its own noise",
    "请连接空的潜变量：校准自己产生噪声",
    "空の潜在変数を接続してください：ノイズはキャリブレーションが作ります",
    "빈 잠재 변수를 연결하세요: 잡음은 캘리브레이션이 만듭니다",
    "branchez un latent vide : la calibration fait son propre bruit",
  ],
  [
    "encode the picture with this model's VAE",
    "请用该模型的 VAE 编码图像",
    "このモデルの VAE で画像を符号化してください",
    "이 모델의 VAE로 그림을 인코딩하세요",
    "encodez l’image avec le VAE de ce modèle",
  ],
  [
    "plug in Observe Layers (in Python: observation=), or set include patterns",
    "请连接“观察各层”（Observe Layers），或设置 include",
    "「レイヤーを観察」（Observe Layers）を接続するか、include を設定してください",
    "레이어 관찰(Observe Layers)을 연결하거나 include를 설정하세요",
    "branchez Observer les couches (Observe Layers), ou donnez des motifs include",
  ],
  [
    "plug in the FP16 model, or set include patterns",
    "请连接 FP16 模型，或设置 include",
    "FP16 モデルを接続するか、include を設定してください",
    "FP16 모델을 연결하거나 include를 설정하세요",
    "branchez le modèle FP16, ou donnez des motifs include",
  ],
  [
    "put the prompt file into {0}",
    "请把提示词文件放到 {0}",
    "プロンプトのファイルを {0} に置いてください",
    "프롬프트 파일을 {0}에 넣으세요",
    "mettez le fichier de prompts dans {0}",
  ],
  [
    "write one prompt per line, 12 or more is good",
    "每行写一条提示词，12 条以上为宜",
    "1 行に 1 つプロンプトを書いてください。12 件以上が適切です",
    "한 줄에 프롬프트 하나를 쓰세요. 12개 이상이 좋습니다",
    "écrivez un prompt par ligne, 12 ou plus, c’est bien",
  ],
  [
    "change the settings, or choose to resample",
    "请更改设置，或选择 resample",
    "設定を変えるか、resample を選んでください",
    "설정을 바꾸거나 resample을 고르세요",
    "changez les réglages, ou choisissez resample",
  ],
];

const FIX = ["Fix:", "解决办法：", "対処：", "해결:", "À faire :"];
const OURS = /^Q-Sched: (.*?)(?:(\s)Fix: (.*))?$/s;

const translation = translator(SENTENCES);

/**
 * @param {string} message of an error: "Q-Sched: <what is wrong> Fix: <what to do>", on one line or two
 * @returns {string} what is known of it in the page's language; all of it as it came where what is wrong is not known
 */
export function translatedError(message) {
  const language = pageLanguage();
  const [, what, gap, fix] = (language && OURS.exec(message)) || [];
  const known = what && translation(what, language);
  if (!known) return message;
  return `Q-Sched: ${known}${fix ? `${gap}${FIX[language]} ${translation(fix, language) ?? fix}` : ""}`;
}
