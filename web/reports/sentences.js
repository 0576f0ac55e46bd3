// The sentences of reports in the page's language. The server writes English, {n} stands for what it puts in; a line
// that is not here is shown as it came. A test finds every English text in the sources that write it.
import { pageLanguage } from "../shared/texts.js";

/** Per sentence: English, Chinese, Japanese, Korean, French. */
const SENTENCES = [
  // calibration/report.py
  ["Accepted, repair: {0}.", "已接受，修复：{0}。", "採用、修復：{0}。", "채택, 복구: {0}.", "Accepté, réparation : {0}."],
  [
    "Accepted, re-tuning: {0}.",
    "已接受，重新调整：{0}。",
    "採用、再調整：{0}。",
    "채택, 재조정: {0}.",
    "Accepté, réglage : {0}.",
  ],
  [
    "Re-tuning, identity recommended: {0}.",
    "只是重新调整，建议不使用（恒等）：{0}。",
    "再調整です。恒等（変更なし）を推奨：{0}。",
    "재조정입니다. 항등(변경 없음) 권장: {0}.",
    "Réglage, identité recommandée : {0}.",
  ],
  [
    "The score rises, but something else gets worse: {0}. Identity recommended.",
    "分数上升，但其他方面变差：{0}。建议不使用（恒等）。",
    "スコアは上がりますが、ほかが悪化します：{0}。恒等（変更なし）を推奨。",
    "점수는 오르지만 다른 것이 나빠집니다: {0}. 항등(변경 없음) 권장.",
    "Le score monte, mais autre chose se dégrade : {0}. Identité recommandée.",
  ],
  [
    "The candidate drifts in {0}: that is never accepted.",
    "候选在 {0} 上有漂移：这种候选不会被接受。",
    "候補は {0} がずれます：採用されません。",
    "후보의 {0}이(가) 변합니다: 채택되지 않습니다.",
    "Le candidat dérive : {0} ; cela n’est jamais accepté.",
  ],
  [
    "Control: the same coefficients change the reference model's JAQ by {0}.",
    "对照：同样的系数使参考模型的 JAQ 变化 {0}。",
    "対照：同じ係数で参照モデルの JAQ は {0} 変わります。",
    "대조: 같은 계수로 참조 모델의 JAQ가 {0} 변합니다.",
    "Contrôle : les mêmes coefficients changent de {0} le JAQ du modèle de référence.",
  ],
  ["Net of that: JAQ {0}.", "扣除后：JAQ {0}。", "差し引き：JAQ {0}。", "이를 뺀 값: JAQ {0}.", "Net de cela : JAQ {0}."],
  [
    "A repair of JAQ {0} would be found four times in five on so many prompts; more find smaller ones.",
    "以这么多提示词，JAQ 为 {0} 的修复五次中有四次能被发现；提示词越多，能发现的修复越小。",
    "この数のプロンプトでは、JAQ {0} の修復を 5 回に 4 回見つけられます。多いほど小さな修復も見つかります。",
    "이만큼의 프롬프트로는 JAQ {0}의 복구를 다섯 번 중 네 번 찾아냅니다. 많을수록 더 작은 복구도 찾습니다.",
    "Une réparation de {0} en JAQ serait vue quatre fois sur cinq avec ces prompts ; plus de prompts en voient de plus petites.",
  ],
  [
    "So the gain is re-tuning of the sampler: the reference model gains as much. Your taste decides.",
    "因此增益只是重新调整采样器：参考模型获得同样的增益。由您的喜好决定。",
    "つまり改善はサンプラーの再調整です：参照モデルも同じだけ改善します。好みで決めてください。",
    "따라서 이득은 샘플러 재조정입니다: 참조 모델도 그만큼 오릅니다. 취향대로 정하세요.",
    "Le gain vient donc d’un réglage de l’échantillonneur : la référence gagne autant. À votre goût de décider.",
  ],
  [
    "There is no reference model: re-tuning cannot be told from repair here.",
    "没有参考模型：这里无法区分重新调整与修复。",
    "参照モデルがありません：再調整と修復を区別できません。",
    "참조 모델이 없습니다: 재조정과 복구를 구별할 수 없습니다.",
    "Il n’y a pas de modèle de référence : réglage et réparation ne se distinguent pas ici.",
  ],
  [
    "From the reference's pictures: {0}, with Q-Sched {1}; from noise to noise {2}.",
    "与参考图像的距离：{0}，使用 Q-Sched 后 {1}；不同噪声之间 {2}。",
    "参照画像との距離：{0}、Q-Sched あり {1}；ノイズ違いどうし {2}。",
    "참조 그림과의 거리: {0}, Q-Sched 사용 {1}; 잡음끼리 {2}.",
    "Distance aux images de référence : {0}, avec Q-Sched {1} ; d’un bruit à l’autre {2}.",
  ],
  [
    "No candidate beat the stock sampler on the search prompts: identity recommended.",
    "在搜索提示词上没有候选优于原采样器：建议不使用（恒等）。",
    "探索用プロンプトで元のサンプラーに勝る候補はありません：恒等（変更なし）を推奨。",
    "탐색 프롬프트에서 원래 샘플러보다 나은 후보가 없습니다: 항등(변경 없음) 권장.",
    "Aucun candidat n’a fait mieux que l’échantillonneur d’origine sur les prompts de recherche : identité recommandée.",
  ],
  [
    "Worse than the stock sampler: {0}. Identity recommended.",
    "比原采样器更差：{0}。建议不使用（恒等）。",
    "元のサンプラーより悪化：{0}。恒等（変更なし）を推奨。",
    "원래 샘플러보다 나쁨: {0}. 항등(변경 없음) 권장.",
    "Moins bon que l’échantillonneur d’origine : {0}. Identité recommandée.",
  ],
  [
    "No gain beyond noise: {0}. Identity recommended.",
    "增益未超出噪声：{0}。建议不使用（恒等）。",
    "ノイズを超える改善なし：{0}。恒等（変更なし）を推奨。",
    "잡음을 넘는 이득 없음: {0}. 항등(변경 없음) 권장.",
    "Aucun gain au-delà du bruit : {0}. Identité recommandée.",
  ],
  [
    "{0} came out broken (not finite). Identity recommended.",
    "{0} 已损坏（数值非有限）。建议不使用（恒等）。",
    "{0} が壊れました（有限でない値）。恒等（変更なし）を推奨。",
    "{0} 이(가) 깨졌습니다(유한하지 않음). 항등(변경 없음) 권장.",
    "{0} : image abîmée (valeurs non finies). Identité recommandée.",
  ],
  ["Paired gains: {0}.", "成对增益：{0}。", "対にした改善：{0}。", "짝지은 이득: {0}.", "Gains appariés : {0}."],
  ["Not optimised: {0}.", "未优化的指标：{0}。", "最適化していない指標：{0}。", "최적화하지 않은 지표: {0}.", "Non optimisé : {0}."],
  [
    "What falls, clear of noise: {0}. Look before you trust it.",
    "明显下降（超出噪声）：{0}。请先看图再采信。",
    "ノイズを超えて下がったもの：{0}。信じる前に画像を見てください。",
    "잡음을 넘어 떨어진 것: {0}. 믿기 전에 그림을 보세요.",
    "Ce qui baisse, au-delà du bruit : {0}. Regardez avant de vous y fier.",
  ],
  [
    "The search's own prompts promised {0}, held-out ones give {1}: {2} was luck.",
    "搜索用提示词预期 {0}，保留的提示词得到 {1}：其中 {2} 是运气。",
    "探索用プロンプトでは {0}、取り置いたプロンプトでは {1}：{2} は運でした。",
    "탐색 프롬프트는 {0}을(를) 약속했고, 남겨 둔 프롬프트는 {1}입니다: {2}은(는) 운이었습니다.",
    "Les prompts de recherche promettaient {0}, ceux mis de côté donnent {1} : {2} de chance.",
  ],
  [
    "On the border of the trust region: {0}. The optimum may lie outside.",
    "位于信任区域边界：{0}。最优值可能在区域之外。",
    "信頼領域の境界上：{0}。最適値は外にあるかもしれません。",
    "신뢰 영역의 경계: {0}. 최적값은 바깥에 있을 수 있습니다.",
    "Au bord de la région de confiance : {0}. L’optimum est peut-être dehors.",
  ],
  [
    "No candidate could win that worsens: {0}.",
    "使以下指标变差的候选不能胜出：{0}。",
    "次を悪化させる候補は選ばれません：{0}。",
    "다음을 나쁘게 하는 후보는 이길 수 없습니다: {0}.",
    "Un candidat qui dégrade ceci ne pouvait pas gagner : {0}.",
  ],
  ["Cost: {0}; {1}.", "开销：{0}；{1}。", "費用：{0}；{1}。", "비용: {0}; {1}.", "Coût : {0} ; {1}."],
  [
    "Warm start: {0} were tried as candidates.",
    "热启动：{0} 也作为候选试过。",
    "ウォームスタート：{0} も候補として試しました。",
    "웜 스타트: {0}도 후보로 시도했습니다.",
    "Départ à chaud : {0} essayés comme candidats.",
  ],
  // qsched_core/quant/report.py
  ["{0} quantised.", "已量化 {0}。", "{0} を量子化しました。", "{0} 양자화함.", "{0} quantifiées."],
  [
    "Model {0} at FP16 -> {1} ({2}x). Mean relative weight error {3}.",
    "模型在 FP16 下为 {0}，现为 {1}（{2} 倍）。权重平均相对误差 {3}。",
    "モデルは FP16 で {0}、いまは {1}（{2} 倍）。重みの平均相対誤差 {3}。",
    "모델은 FP16에서 {0}, 지금은 {1}({2}배). 가중치 평균 상대 오차 {3}.",
    "Modèle {0} en FP16 -> {1} ({2}x). Erreur relative moyenne des poids {3}.",
  ],
  [
    "Model {0} in {1} -> {2} ({3}x). Mean relative weight error {4}.",
    "模型在 {1} 下为 {0}，现为 {2}（{3} 倍）。权重平均相对误差 {4}。",
    "モデルは {1} で {0}、いまは {2}（{3} 倍）。重みの平均相対誤差 {4}。",
    "모델은 {1}에서 {0}, 지금은 {2}({3}배). 가중치 평균 상대 오차 {4}.",
    "Modèle {0} en {1} -> {2} ({3}x). Erreur relative moyenne des poids {4}.",
  ],
  [
    "Errors are those against the weights that the file held; what it lost before is not in them.",
    "误差是相对文件中的权重计算的；文件之前的损失不在其中。",
    "誤差はファイルの重みに対するものです。それ以前の損失は含みません。",
    "오차는 파일의 가중치에 대한 것이며, 그 전에 잃은 것은 들어 있지 않습니다.",
    "Les erreurs sont mesurées contre les poids du fichier ; ce qu’il avait perdu avant n’y est pas.",
  ],
  [
    "Convolutions round their weights only, activations stay in floating point.",
    "卷积只对权重取整，激活保持浮点。",
    "畳み込みは重みだけを丸め、活性は浮動小数点のままです。",
    "합성곱은 가중치만 반올림하고 활성값은 부동소수점으로 둡니다.",
    "Les convolutions n’arrondissent que leurs poids, les activations restent en virgule flottante.",
  ],
  ["Kept {0}: {1}.", "保留 {0} 个：{1}。", "そのまま {0}：{1}。", "그대로 둠 {0}: {1}.", "Gardées {0} : {1}."],
  [
    "Largest error {0}: {1} ({2}).",
    "最大误差 {0}：{1}（{2}）。",
    "最大の誤差 {0}：{1}（{2}）。",
    "가장 큰 오차 {0}: {1} ({2}).",
    "Plus grande erreur {0} : {1} ({2}).",
  ],
  // qsched_core/quant/leftover.py, nodes/quantization/twin_model.py, nodes/text_encoder.py
  [
    "Not packed, no layer of a known kind: {0}, {1} of the bytes.",
    "未压缩，不是已知类型的层：{0}，占字节数的 {1}。",
    "未圧縮、既知の種類のレイヤーではないもの：{0}、バイト数の {1}。",
    "압축하지 않음, 아는 종류의 레이어가 아님: {0}, 바이트의 {1}.",
    "Non compactés, pas une couche d’un genre connu : {0}, {1} des octets.",
  ],
  [
    "Nothing to gain: the model goes through as it is. Choose fewer bits, or leave this node out.",
    "没有可节省的：模型原样通过。请选择更少的位数，或去掉本节点。",
    "小さくなりません：モデルはそのまま通ります。ビット数を減らすか、このノードを外してください。",
    "줄일 것이 없음: 모델이 그대로 통과합니다. 더 적은 비트를 고르거나 이 노드를 빼세요.",
    "Rien à gagner : le modèle passe tel quel. Choisissez moins de bits, ou retirez ce nœud.",
  ],
  [
    "Conditioning of {0} prompts: cosine to the full one {1}.",
    "{0} 条提示词的条件：与完整编码器的余弦相似度 {1}。",
    "{0} 個のプロンプトの条件付け：元とのコサイン類似度 {1}。",
    "프롬프트 {0}개의 조건: 원본과의 코사인 유사도 {1}.",
    "Conditionnement de {0} prompts : cosinus avec le complet {1}.",
  ],
  [
    "That is far: try w4a16, which takes as much memory, or w8a8, or leave this encoder full.",
    "相差较大：请试试占用相同内存的 w4a16，或 w8a8，或不量化这个编码器。",
    "離れています：同じメモリの w4a16 か w8a8 を試すか、このエンコーダーは量子化しないでください。",
    "차이가 큽니다: 메모리가 같은 w4a16이나 w8a8을 써 보거나, 이 인코더는 그대로 두세요.",
    "C’est loin : essayez w4a16, qui prend autant de mémoire, ou w8a8, ou laissez cet encodeur complet.",
  ],
  // nodes/presets.py, nodes/quantize_model.py
  ["Saved {0}", "已保存 {0}", "保存しました：{0}", "저장함: {0}", "Enregistré : {0}"],
  // qsched_core/environment.py
  [
    "Q-Sched {0}: all is fine",
    "Q-Sched {0}：一切正常",
    "Q-Sched {0}：問題ありません",
    "Q-Sched {0}: 모두 정상",
    "Q-Sched {0} : tout va bien",
  ],
  [
    "Q-Sched {0}: {1} thing to do",
    "Q-Sched {0}：有 {1} 件事要做",
    "Q-Sched {0}：{1} 件の対応が必要",
    "Q-Sched {0}: 할 일 {1}개",
    "Q-Sched {0} : {1} chose à faire",
  ],
  [
    "Q-Sched {0}: {1} things to do",
    "Q-Sched {0}：有 {1} 件事要做",
    "Q-Sched {0}：{1} 件の対応が必要",
    "Q-Sched {0}: 할 일 {1}개",
    "Q-Sched {0} : {1} choses à faire",
  ],
  [
    "{0} is not installed: {1}. Run: {2}",
    "未安装 {0}（{1}）。请运行：{2}",
    "{0} がインストールされていません（{1}）。実行：{2}",
    "{0}이(가) 설치되지 않았습니다({1}). 실행: {2}",
    "{0} n’est pas installé ({1}). Lancez : {2}",
  ],
  [
    "{0}: {1} cannot be written. Make {2} a folder of yours",
    "{0}：无法写入 {1}。请把 {2} 设为您可写的文件夹",
    "{0}：{1} に書き込めません。{2} を書き込めるフォルダーにしてください",
    "{0}: {1}에 쓸 수 없습니다. {2}을(를) 쓸 수 있는 폴더로 만드세요",
    "{0} : impossible d’écrire dans {1}. Faites de {2} un dossier à vous",
  ],
  [
    "no metric can run, and nothing be calibrated: open_clip cannot be imported ({0}). Run: {1}",
    "任何指标都无法运行，也无法校准：无法导入 open_clip（{0}）。请运行：{1}",
    "どの指標も動かず、キャリブレーションできません：open_clip を読み込めません（{0}）。実行：{1}",
    "어떤 지표도 실행할 수 없어 캘리브레이션할 수 없습니다: open_clip을 가져올 수 없습니다({0}). 실행: {1}",
    "aucune métrique ne peut tourner, ni rien être calibré : open_clip ne s’importe pas ({0}). Lancez : {1}",
  ],
];

/**
 * @param {string[][]} sentences each in all languages, English first
 * @returns {(line: string, language: number) => ?string} null where it is none of them
 */
export function translator(sentences) {
  // The more of it is fixed, the surer it is meant.
  const fixed = (texts) => texts[0].replace(/\{\d\}/g, "").length;
  const known = sentences.map((texts) => ({ texts, pattern: patternOf(texts[0]) })).sort(
    (a, b) => fixed(b.texts) - fixed(a.texts),
  );
  return (line, language) => {
    for (const { texts, pattern } of known) {
      const found = pattern.exec(line);
      if (found) return texts[language].replace(/\{(\d)\}/g, (whole, n) => found[Number(n) + 1]);
    }
    return null;
  };
}

const translation = translator(SENTENCES);
const STATE = /^(?:OK|TO DO|OPTIONAL) {2,}/; // of a line of the environment check

/** @param {string} report lines of English @returns {string} those that are known in the page's language */
export function translated(report) {
  const language = pageLanguage();
  return language === 0 ? report : report.split("\n").map((line) => translatedLine(line, language)).join("\n");
}

function translatedLine(line, language) {
  const state = STATE.exec(line)?.[0] ?? "";
  return state + (translation(line.slice(state.length), language) ?? line.slice(state.length));
}

function patternOf(english) {
  const parts = english.split(/\{\d\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join("(.+?)")}$`);
}
